//go:build linux && (amd64 || arm64)

package reactor

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// uring is an io_uring instance with a ring of buffers for what is received (io_uring(7), io_uring_setup(2),
// io_uring_enter(2), io_uring_register(2)). It knows nothing of sockets' owners. All of it is one thread's, the one that
// has called enable.
type uring struct {
	fd             int
	rings, entries []byte // shared with the kernel
	buffers        []byte
	bufferRing     []byte
	bufferTail     uint16
	firstBuffer    uint16 // the id in the ring's first entry, which shares a word with the tail

	submitHead, submitTail, completeHead, completeTail *uint32
	submitMask, completeMask                           uint32
	completions                                        unsafe.Pointer // of completion
	tail                                               uint32         // of what has been pushed

	limit syscall.Timespec
	wait  struct { // a struct io_uring_getevents_arg
		signals              uint64
		signalsSize, padding uint32
		limit                uint64 // the address of a limit, 0 for none
	}
}

// completion is a struct io_uring_cqe.
type completion struct {
	token  uint64
	result int32
	flags  uint32
}

// submission is a struct io_uring_sqe.
type submission struct {
	opcode, flags   uint8
	priority        uint16
	fd              int32
	offset, address uint64
	length, opFlags uint32
	token           uint64
	bufferGroup     uint16
	personality     uint16
	spliceFD        int32
	padding         [2]uint64
}

// uringParameters is a struct io_uring_params.
type uringParameters struct {
	submitEntries, completeEntries, flags, threadCPU, threadIdle, features, workers uint32
	reserved                                                                        [3]uint32
	submit                                                                          struct {
		head, tail, mask, entries, flags, dropped, array, reserved uint32
		address                                                    uint64
	}
	complete struct {
		head, tail, mask, entries, overflow, completions, flags, reserved uint32
		address                                                           uint64
	}
}

// The kernel's numbers: include/uapi/linux/io_uring.h.
const (
	sysSetup, sysEnter, sysRegister = 425, 426, 427

	setupCQSize, setupDisabled, setupSingleIssuer, setupDeferTaskrun = 1 << 3, 1 << 6, 1 << 12, 1 << 13
	featureSingleMmap, featureNoDrop, featureExtArg, featureSkip     = 1 << 0, 1 << 1, 1 << 8, 1 << 11
	enterGetEvents, enterExtArg                                      = 1 << 0, 1 << 3
	registerEnable, registerBufferRing                               = 12, 22
	offsetEntries                                                    = 0x10000000

	opNop, opPollAdd, opAsyncCancel, opSend, opRecv = 0, 6, 14, 26, 27
	cancelAll, cancelFD                             = 1 << 0, 1 << 1
	entryLink, entryBufferSelect, entrySkipSuccess  = 1 << 2, 1 << 5, 1 << 6
	recvPollFirst                                   = 1 << 0
	completionBuffer, completionBufferShift         = 1 << 0, 16
	submitEntries, completeEntries                  = 512, 8192
	// ringBuffers of ringBufferSize bytes are what has been received and not dealt with at most: one wake-up's. The
	// number is a power of two.
	ringBuffers, ringBufferSize = 128, 32 << 10
	bufferEntry                 = 16 // bytes of a struct io_uring_buf
)

func openUring() (u *uring, err error) {
	parameters := uringParameters{
		flags: setupCQSize | setupDisabled | setupSingleIssuer | setupDeferTaskrun, completeEntries: completeEntries,
	}
	fd, _, errno := syscall.RawSyscall(sysSetup, submitEntries, uintptr(unsafe.Pointer(&parameters)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	u = &uring{fd: int(fd)}
	defer func() {
		if err != nil {
			u.close()
		}
	}()
	const features = featureSingleMmap | featureNoDrop | featureExtArg | featureSkip
	if parameters.features&features != features {
		return nil, fmt.Errorf("io_uring_setup: %w", syscall.ENOSYS)
	}
	const shared, protection = syscall.MAP_SHARED | syscall.MAP_POPULATE, syscall.PROT_READ | syscall.PROT_WRITE
	submit, complete := &parameters.submit, &parameters.complete
	size := max(submit.array+parameters.submitEntries*4, complete.completions+parameters.completeEntries*uint32(unsafe.Sizeof(completion{})))
	if u.rings, err = syscall.Mmap(u.fd, 0, int(size), protection, shared); err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	if u.entries, err = syscall.Mmap(u.fd, offsetEntries, int(parameters.submitEntries)*int(unsafe.Sizeof(submission{})), protection, shared); err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	word := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&u.rings[offset])) }
	u.submitHead, u.submitTail, u.submitMask = word(submit.head), word(submit.tail), *word(submit.mask)
	u.completeHead, u.completeTail, u.completeMask = word(complete.head), word(complete.tail), *word(complete.mask)
	u.completions = unsafe.Pointer(&u.rings[complete.completions])
	for i := range parameters.submitEntries { // each place in the queue is its entry's for good
		*word(submit.array + 4*i) = i
	}
	return u, u.lendBuffers()
}

// lendBuffers gives the kernel memory to receive into.
func (u *uring) lendBuffers() (err error) {
	const private = syscall.MAP_PRIVATE | syscall.MAP_ANON
	if u.buffers, err = syscall.Mmap(-1, 0, ringBuffers*ringBufferSize, syscall.PROT_READ|syscall.PROT_WRITE, private); err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	if u.bufferRing, err = syscall.Mmap(-1, 0, ringBuffers*bufferEntry, syscall.PROT_READ|syscall.PROT_WRITE, private); err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	registration := struct {
		address      uint64
		entries      uint32
		group, flags uint16
		reserved     [3]uint64
	}{address: uint64(uintptr(unsafe.Pointer(&u.bufferRing[0]))), entries: ringBuffers}
	if _, _, errno := syscall.RawSyscall6(sysRegister, uintptr(u.fd), registerBufferRing, uintptr(unsafe.Pointer(&registration)), 1, 0, 0); errno != 0 {
		return fmt.Errorf("io_uring_register: %w", errno)
	}
	for id := range uint16(ringBuffers) {
		u.lend(id)
	}
	return nil
}

// lend gives the kernel a buffer, again.
func (u *uring) lend(id uint16) {
	at := int(u.bufferTail&(ringBuffers-1)) * bufferEntry
	*(*uint64)(unsafe.Pointer(&u.bufferRing[at])) = uint64(uintptr(unsafe.Pointer(&u.buffers[int(id)*ringBufferSize])))
	*(*uint32)(unsafe.Pointer(&u.bufferRing[at+8])) = ringBufferSize
	if at == 0 {
		u.firstBuffer = id
	} else {
		*(*uint16)(unsafe.Pointer(&u.bufferRing[at+12])) = id
	}
	u.bufferTail++
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&u.bufferRing[12])), uint32(u.bufferTail)<<16|uint32(u.firstBuffer))
}

// lent is the memory of a buffer.
func (u *uring) lent(id uint16, length int) []byte {
	at := int(id) * ringBufferSize
	return u.buffers[at : at+length : at+length]
}

// enable makes the calling thread the one that the ring is for.
func (u *uring) enable() error {
	if _, _, errno := syscall.RawSyscall6(sysRegister, uintptr(u.fd), registerEnable, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("io_uring_register: %w", errno)
	}
	return nil
}

// push enters a submission, which goes to the kernel with the next enter: this one, where there is no place left.
func (u *uring) push(s submission) {
	u.reserve(1)
	at := uintptr(u.tail&u.submitMask) * unsafe.Sizeof(s)
	*(*submission)(unsafe.Pointer(&u.entries[at])) = s
	u.tail++
}

// reserve makes room for so many submissions, which then go to the kernel together.
func (u *uring) reserve(n uint32) {
	for u.tail-atomic.LoadUint32(u.submitHead)+n > u.submitMask+1 {
		u.enter(0, 0, true)
	}
}

// enter submits what has been pushed, and waits until so many completions are there, or the patience has passed; a
// negative one has no end. A call that is quick is one that the runtime is not told of.
func (u *uring) enter(complete uint32, patience time.Duration, quick bool) {
	atomic.StoreUint32(u.submitTail, u.tail)
	u.wait.limit = 0
	if patience >= 0 {
		u.limit = syscall.NsecToTimespec(int64(patience))
		u.wait.limit = uint64(uintptr(unsafe.Pointer(&u.limit)))
	}
	call := syscall.Syscall6
	if quick {
		call = syscall.RawSyscall6
	}
	// An error is an interruption, or the end of the patience; what has not been submitted is, with the next call.
	call(sysEnter, uintptr(u.fd), uintptr(u.tail-atomic.LoadUint32(u.submitHead)), uintptr(complete), enterGetEvents|enterExtArg,
		uintptr(unsafe.Pointer(&u.wait)), unsafe.Sizeof(u.wait))
}

// waiting is how many completions are there.
func (u *uring) waiting() uint32 { return atomic.LoadUint32(u.completeTail) - *u.completeHead }

// pop takes a completion that is there.
func (u *uring) pop() (c completion, ok bool) {
	head := *u.completeHead
	if head == atomic.LoadUint32(u.completeTail) {
		return c, false
	}
	c = *(*completion)(unsafe.Add(u.completions, uintptr(head&u.completeMask)*unsafe.Sizeof(c)))
	atomic.StoreUint32(u.completeHead, head+1)
	return c, true
}

// close may be called on any thread once the ring's has ended.
func (u *uring) close() {
	syscall.Close(u.fd) //nolint:errcheck
	for _, memory := range [][]byte{u.rings, u.entries, u.buffers, u.bufferRing} {
		if memory != nil {
			syscall.Munmap(memory) //nolint:errcheck
		}
	}
}
