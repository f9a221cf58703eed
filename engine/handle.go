package engine

// Handle names a connection off its loop: loop index, slot in the loop's table and the slot's generation, so that a
// handle of a closed connection finds nothing rather than its successor. The zero Handle names none.
type Handle uint64

// A Handle is, from the top: loop (8 bits), generation (28 bits), slot (28 bits). Generations begin at 1, so no live
// connection has the zero Handle. A slot's generations repeat after 2^28 − 1 connections in that slot.
const (
	slotBits       = 28
	generationBits = 28
	maxSlots       = 1 << slotBits
	maxGeneration  = 1<<generationBits - 1
)

// Loop is the index of the event loop that owns the connection.
func (h Handle) Loop() int { return int(h >> (generationBits + slotBits)) }

func (h Handle) slot() uint32       { return uint32(h & (maxSlots - 1)) }
func (h Handle) generation() uint32 { return uint32(h>>slotBits) & maxGeneration }

func makeHandle(loop int, generation, slot uint32) Handle {
	return Handle(loop)<<(generationBits+slotBits) | Handle(generation)<<slotBits | Handle(slot)
}

// chunkSlots is how many slots the table grows by: 16 KiB, so that growing copies nothing and wastes little.
const (
	chunkSlots = 1024
	chunkShift = 10
)

// chunk is a part of the table, by column: the sweep reads the deadlines alone.
type chunk struct {
	due        [chunkSlots]uint32 // seconds on the loop's clock, 0 = none
	generation [chunkSlots]uint32 // of the connection in the slot, or of the next one
	conn       [chunkSlots]*Conn
}

// table holds a loop's connections by slot. It belongs to the loop.
type table struct {
	chunks []*chunk
	free   []uint32 // slots that had a connection
	used   uint32   // slots below it have or had one
	count  int
}

// add puts c into a slot and returns it.
func (t *table) add(c *Conn) uint32 {
	t.count++
	var slot uint32
	if n := len(t.free); n > 0 {
		slot = t.free[n-1]
		t.free = t.free[:n-1]
	} else {
		slot = t.used
		t.used++
		if int(slot>>chunkShift) == len(t.chunks) {
			t.chunks = append(t.chunks, new(chunk))
		}
	}
	k, i := t.at(slot)
	k.conn[i] = c
	k.due[i] = 0
	if k.generation[i] == 0 {
		k.generation[i] = 1
	}
	return slot
}

// remove frees the slot for the next connection.
func (t *table) remove(slot uint32) {
	k, i := t.at(slot)
	k.conn[i] = nil
	k.due[i] = 0
	t.count--
	t.free = append(t.free, slot)
}

// at is where slot is: chunk and index in it.
func (t *table) at(slot uint32) (*chunk, uint32) {
	return t.chunks[slot>>chunkShift], slot & (chunkSlots - 1)
}

// conn is the connection in slot, or nil.
func (t *table) conn(slot uint32) *Conn {
	if slot >= t.used {
		return nil
	}
	k, i := t.at(slot)
	return k.conn[i]
}

func (t *table) generation(slot uint32) uint32 {
	k, i := t.at(slot)
	return k.generation[i]
}

// retire makes the handles of the connection in slot find nothing.
func (t *table) retire(slot uint32) {
	k, i := t.at(slot)
	if k.generation[i]++; k.generation[i] > maxGeneration {
		k.generation[i] = 1
	}
}

func (t *table) setDue(slot, second uint32) {
	k, i := t.at(slot)
	k.due[i] = second
}
