package hub

import (
	"strings"
	"time"
	"unsafe"

	"github.com/meshtalk/meshtalk/cluster"
	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/store"
)

// Frame is one committed message, encoded once for all its recipients and both transports. It never changes.
type Frame struct {
	Cmd  codec.Cmd
	Tail []byte // see codec.AppendPushTail
	Conv string
	Seq  uint64
	// From is the sender, "" for the system; Private tells that a RECEIPT is due to it.
	From     string
	Private  bool
	Accepted time.Time
}

// Push is one inbox entry for one session.
type Push struct {
	To    Ref
	Inbox uint64
	Frame *Frame
}

// GroupPush is one message of a large group, for the sessions of the loop that follow it.
type GroupPush struct {
	Group string
	Frame *Frame
}

// Batch is what one commit made for one loop, in the order of the commit.
type Batch struct {
	Answers []*Submission
	Pushes  []Push
	Groups  []GroupPush

	hub *Hub
}

// Release gives the batch back; its submissions are freed by whoever answered them.
func (b *Batch) Release() {
	clear(b.Answers)
	clear(b.Pushes)
	clear(b.Groups)
	b.Answers, b.Pushes, b.Groups = b.Answers[:0], b.Pushes[:0], b.Groups[:0]
	b.hub.batches.Put(b)
}

// delivery gathers what one commit makes, by loop. It is the finisher's.
type delivery struct {
	h      *Hub
	loops  []*Batch // nil until something is for the loop
	frames []Frame
	arena  []byte
	refs   []Ref
	m      codec.ConvMessage // the one at hand
	wakes  []cluster.Wake    // for the other nodes
}

func (h *Hub) newDelivery(messages int) *delivery {
	return &delivery{h: h, loops: make([]*Batch, len(h.outlets)), frames: make([]Frame, 0, messages)}
}

func (d *delivery) batch(loop int) *Batch {
	b := d.loops[loop]
	if b == nil {
		b = d.h.batches.Get().(*Batch)
		b.hub = d.h
		d.loops[loop] = b
	}
	return b
}

// answer queues the answer to s.
func (d *delivery) answer(s *Submission) {
	if s.Ref == 0 {
		s.Done(s)
		return
	}
	b := d.batch(d.h.o.LoopOf(s.Ref))
	b.Answers = append(b.Answers, s)
}

// post hands every loop its part, and the other nodes theirs.
func (d *delivery) post() {
	if len(d.wakes) > 0 {
		d.h.cluster.Wake(d.wakes)
	}
	for i, b := range d.loops {
		if b != nil {
			d.h.outlets[i].Deliver(b)
		}
	}
}

// messageOverhead is about what a message's frame holds beside the content, in bytes: the names of the fields, two
// user names, an id. It sizes the arena; a batch with longer names grows it.
const messageOverhead = 224

// deliver turns a durable batch into answers and pushes.
func (h *Hub) deliver(subs []*Submission, results []store.Result) {
	d := h.newDelivery(len(subs))
	size := 0
	for _, s := range subs {
		size += messageOverhead + len(s.Draft.Content)
	}
	d.arena = make([]byte, 0, size)
	for i, s := range subs {
		r := &results[i]
		s.Err = outcomeError(s.Draft.Kind, r.Outcome)
		s.Seq, s.TS, s.Duplicate = r.Seq, r.TS, r.Outcome == store.Duplicate
		if r.MsgID != [16]byte{} { // the first event's answer, under another id
			s.Draft.MsgID = r.MsgID
		}
		if r.Outcome == store.Stored {
			d.message(s, r)
			h.stats.accepted(s.Draft.Kind)
		}
	}
	// Answers after the frames: they may free what the frames were made of.
	for _, s := range subs {
		d.answer(s)
	}
	d.post()
}

// message makes the frame of one stored draft and finds who gets it.
func (d *delivery) message(s *Submission, r *store.Result) {
	d.m = draftMessage(&s.Draft, r)
	m := &d.m
	f := d.frame(m, s.submitted)
	if r.Large {
		d.pushGroup(s.Draft.Conv[2:], f)
	}
	for _, e := range r.Entries {
		d.push(e.User, e.Inbox, f)
	}
	if !d.h.alone {
		d.wake(r)
	}
	if d.h.o.AfterCommit != nil {
		m.ID = strings.Clone(m.ID)
		d.h.tellCommitted(m)
	}
}

// frame encodes m. The delivery was made for as many messages as it is called for.
func (d *delivery) frame(m *codec.ConvMessage, accepted time.Time) *Frame {
	start := len(d.arena)
	d.arena = codec.AppendPushTail(d.arena, m)
	d.frames = append(d.frames, Frame{
		Cmd: m.Cmd, Tail: d.arena[start:len(d.arena):len(d.arena)],
		Conv: m.Conv, Seq: m.Seq, From: m.From,
		Private:  m.Cmd == codec.PrivateMessage,
		Accepted: accepted,
	})
	return &d.frames[len(d.frames)-1]
}

// push is for every session of the user here.
func (d *delivery) push(user string, inbox uint64, f *Frame) {
	d.refs = d.h.registry.refs(d.refs[:0], user)
	for _, ref := range d.refs {
		b := d.batch(d.h.o.LoopOf(ref))
		b.Pushes = append(b.Pushes, Push{To: ref, Inbox: inbox, Frame: f})
	}
}

// pushGroup is for every loop: each knows who follows a large group.
func (d *delivery) pushGroup(group string, f *Frame) {
	for i := range d.loops {
		b := d.batch(i)
		b.Groups = append(b.Groups, GroupPush{Group: group, Frame: f})
	}
}

// wake tells the other nodes of the message at hand. They get a copy: the submission's bytes are used again.
func (d *delivery) wake(r *store.Result) {
	m := d.m
	m.Content, m.ID = append([]byte(nil), m.Content...), strings.Clone(m.ID)
	if r.Large {
		d.wakes = append(d.wakes, cluster.Wake{Group: m.Group, Message: &m})
	}
	for _, e := range r.Entries {
		d.wakes = append(d.wakes, cluster.Wake{User: e.User, Inbox: e.Inbox, Message: &m})
	}
}

// tellCommitted calls the hook. Its panic must not cost the batch.
func (h *Hub) tellCommitted(m *codec.ConvMessage) {
	defer func() {
		if r := recover(); r != nil {
			h.pool.Panicked(r)
		}
	}()
	h.o.AfterCommit(m)
}

// draftMessage is a stored draft as clients see it. Its Content and ID are the draft's bytes.
func draftMessage(d *store.Draft, r *store.Result) codec.ConvMessage {
	m := codec.ConvMessage{
		Cmd: kindCmd(d.Kind), MsgID: d.MsgID, Conv: d.Conv, Seq: r.Seq, From: d.From,
		TS: r.TS, Type: d.Type, Content: d.Content, ID: unsafe.String(unsafe.SliceData(d.ID), len(d.ID)), Target: d.Target,
	}
	address(&m)
	return m
}

// StoredMessage is a message of the store as clients see it.
func StoredMessage(s *store.Message) codec.ConvMessage {
	m := codec.ConvMessage{
		Cmd: kindCmd(s.Kind), MsgID: s.MsgID, Conv: s.Conv, Seq: s.Seq, From: s.From,
		TS: s.TS, Type: s.Type, Content: s.Content, ID: s.ID, Target: s.Target, Recalled: s.Recalled,
	}
	address(&m)
	return m
}

// address derives To and Group from the conversation.
func address(m *codec.ConvMessage) {
	switch kind, name, _ := store.ConvKind(m.Conv); kind {
	case 'p':
		m.To, _ = store.Peer(m.Conv, m.From)
	case 'g':
		m.Group = name
	case 'n':
		m.To = name
	}
}

func kindCmd(k store.Kind) codec.Cmd {
	switch k {
	case store.Private:
		return codec.PrivateMessage
	case store.Group:
		return codec.GroupMessage
	case store.System:
		return codec.SystemMessage
	}
	return codec.Recall
}
