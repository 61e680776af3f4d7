//go:build linux

package main

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// The proxy of the faults is built with a time.Now that adds a variable to the wall clock, which is 0 until a fault writes
// into the process's memory. The machine's own clock would take everything else with it.
const (
	clockVariable = "jumpedSeconds"
	clockReads    = "sec, nsec, mono := runtimeNow()\n\tif mono == 0 {" // in time.Now, once
)

// settableClock writes what the go command needs to build so, and returns its flags: none with a Go whose time.Now reads
// differently.
func (s *site) settableClock() ([]string, error) {
	original := filepath.Join(runtime.GOROOT(), "src", "time", "time.go") //nolint:staticcheck // it is built by the go command that runs it
	text, err := os.ReadFile(original)
	if err != nil || strings.Count(string(text), clockReads) != 1 {
		return nil, nil //nolint:nilerr // setClock says that it cannot be had
	}
	jumping := strings.Replace(string(text), clockReads, strings.Replace(clockReads, "\n", "\n\tsec += "+clockVariable+"\n", 1), 1)
	jumping += "\nvar " + clockVariable + " int64\n"
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: s.path("time.go")}})
	if err != nil {
		return nil, err
	}
	return []string{"-overlay", s.path("overlay.json")}, errors.Join(
		os.WriteFile(s.path("time.go"), []byte(jumping), 0o600), os.WriteFile(s.path("overlay.json"), overlay, 0o600))
}

// setClock has the proxy's wall clock differ from the machine's.
func (s *site) setClock(by time.Duration) error {
	address, err := addressOf(fmt.Sprintf("/proc/%d/exe", s.proxy.PID()), "time."+clockVariable)
	if err != nil {
		return err
	}
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", s.proxy.PID()), os.O_RDWR, 0)
	if errors.Is(err, os.ErrPermission) {
		return errNotHere
	} else if err != nil {
		return err
	}
	defer memory.Close()
	_, err = memory.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(by/time.Second)), address)
	return err
}

// addressOf is where a program without position-independent code has a variable.
func addressOf(program, variable string) (int64, error) {
	file, err := elf.Open(program)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	symbols, err := file.Symbols()
	if err != nil || file.Type != elf.ET_EXEC {
		return 0, errNotHere
	}
	for _, s := range symbols {
		if s.Name == variable {
			return int64(s.Value), nil
		}
	}
	return 0, errNotHere
}

// jumps sets the proxy's clock and logs in.
func jumps(by time.Duration) func(context.Context, *site) error {
	return func(ctx context.Context, s *site) error {
		if err := s.setClock(by); err != nil {
			return err
		}
		for _, t := range s.tenants[:3] { // one of each level
			conn, err := pgconn.Connect(ctx, s.dsn(s.proxy.Address, appLogin, t.name))
			if err != nil {
				return err
			}
			_, err = conn.Exec(ctx, "INSERT INTO owner SELECT name FROM owner WHERE false").ReadAll()
			if err = errors.Join(err, conn.Close(ctx)); err != nil {
				return err
			}
		}
		return nil
	}
}

// clockRestored has it jump back over where it came from, and then be right again.
func clockRestored(ctx context.Context, s *site) error {
	if err := jumps(-24*time.Hour)(ctx, s); err != nil {
		return err
	}
	pause(ctx, 2*time.Second)
	return jumps(0)(ctx, s)
}
