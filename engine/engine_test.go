package engine

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/meshtalk/meshtalk/codec"
)

func TestEcho(t *testing.T) {
	both(t, func(t *testing.T, dial func(t testing.TB, s *server) *client) {
		s := start(t, &script{}, nil)
		c := dial(t, s)
		for i := range 100 {
			c.send(fmt.Sprint("hello ", i))
			c.expect(codec.OpText, fmt.Sprint("hello ", i))
		}
		if n := s.Stats().Connections; n[0]+n[1] != 1 {
			t.Errorf("%v connections", n)
		}
	})
}

func TestPostOrder(t *testing.T) {
	s := start(t, &script{}, nil)
	l := s.Loops()[0]
	const posters, each = 4, 10_000
	var next [posters]int
	var bad atomic.Int64
	var wg sync.WaitGroup
	for p := range posters {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range each {
				l.Post(opFunc(func(*Loop) {
					if next[p] != i {
						bad.Add(1)
					}
					next[p]++
				}))
			}
		}()
	}
	wg.Wait()
	on(t, l, func() {})
	if bad.Load() != 0 || next != [posters]int{each, each, each, each} {
		t.Errorf("%d out of order, ran %v", bad.Load(), next)
	}
	if n := l.Backlog(); n != 0 {
		t.Errorf("backlog %d", n)
	}
}
