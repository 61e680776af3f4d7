package pool

import "iter"

// list is a doubly linked list whose elements live inside the values they link, so that neither joining nor leaving
// allocates and leaving takes no search. A value that can be in one of several lists has one element for all of them.
type list[T any] struct {
	front, back *element[T]
	size        int
}

type element[T any] struct {
	value      T
	prev, next *element[T]
	in         *list[T] // nil while in none
}

func (l *list[T]) pushBack(e *element[T]) {
	e.in, e.prev, e.next = l, l.back, nil
	if l.back == nil {
		l.front = e
	} else {
		l.back.next = e
	}
	l.back = e
	l.size++
}

// leave takes the element out of the list it is in, if any.
func (e *element[T]) leave() {
	l := e.in
	if l == nil {
		return
	}
	if e.prev == nil {
		l.front = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		l.back = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.in, e.prev, e.next = nil, nil, nil
	l.size--
}

// all yields the values from front to back; the one just yielded may leave meanwhile.
func (l *list[T]) all() iter.Seq[T] {
	return func(yield func(T) bool) {
		for e := l.front; e != nil; {
			next := e.next
			if !yield(e.value) {
				return
			}
			e = next
		}
	}
}
