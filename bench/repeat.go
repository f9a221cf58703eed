package bench

import (
	"bytes"

	"github.com/meshtalk/meshtalk/codec"
)

// repeats recognises the frames of a large group. They are byte for byte the same for all its members, so that one
// comparison with the frame that another member got says all that scanning it again would: the packet is whole, it is the
// next one by seq, and it carries the same mark. It costs a tenth of the scan.
type repeats struct {
	known [2][]repeat // by transport; by seq modulo the length, a power of two
}

// repeat is a frame that was scanned in full.
type repeat struct {
	frame []byte
	p     push
}

func newRepeats(window int) *repeats {
	r := &repeats{}
	for i := range r.known {
		r.known[i] = make([]repeat, window)
	}
	return r
}

func (r *repeats) at(t codec.Transport, seq uint64) *repeat {
	k := r.known[t]
	return &k[int(seq)&(len(k)-1)]
}

// next is the known frame that is c's next and stands in front of b, or nil.
func (r *repeats) next(c *conn, b []byte) *repeat {
	k := r.at(c.transport, c.seq+1)
	if k.p.seq != c.seq+1 || len(b) < len(k.frame) || !bytes.Equal(b[:len(k.frame)], k.frame) {
		return nil
	}
	return k
}

// learn keeps a frame that c got, after a full scan.
func (r *repeats) learn(c *conn, frame []byte, p push) {
	k := r.at(c.transport, p.seq)
	k.frame, k.p = append(k.frame[:0], frame...), p
}
