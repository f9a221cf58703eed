package hub

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/meshtalk/meshtalk/mq"
	"github.com/meshtalk/meshtalk/store"
)

// A Submission is an mq.Record. A log inside the process hands over the submission itself; one outside carries its bytes,
// and whoever owns the partition makes a draft of them again.

var _ mq.Record = (*Submission)(nil)

// recordVersion is the first byte of a record.
const recordVersion = 1

// AppendRecord implements mq.Record: version, kind, 1 if promised, message id, then the rest as varints and length-prefixed
// bytes, last where the submission was made.
func (s *Submission) AppendRecord(dst []byte) []byte {
	d := &s.Draft
	promised := byte(0)
	if d.Promised {
		promised = 1
	}
	dst = append(dst, recordVersion, byte(d.Kind), promised)
	dst = append(dst, d.MsgID[:]...)
	for _, n := range [...]int64{d.Type, d.TS, d.RecallAfter, int64(d.Target)} {
		dst = binary.AppendVarint(dst, n)
	}
	for _, b := range [...]string{d.From, d.Conv} {
		dst = append(binary.AppendUvarint(dst, uint64(len(b))), b...)
	}
	for _, b := range [...][]byte{d.ID, d.Content} {
		dst = append(binary.AppendUvarint(dst, uint64(len(b))), b...)
	}
	o := s.hub.origin
	if s.token != 0 {
		o.token = s.token
	}
	dst = append(binary.AppendUvarint(dst, uint64(len(o.node))), o.node...)
	dst = binary.AppendUvarint(dst, uint64(s.Ref))
	return binary.AppendUvarint(dst, o.token)
}

// Kept implements mq.Record: the log is the promise, so the sender is answered now, without a sequence. A recall is
// answered after its commit.
func (s *Submission) Kept(err error) {
	if err == nil {
		s.hub.stats.handover.observe(time.Since(s.submitted).Seconds())
	}
	if s.token != 0 {
		s.hub.recordKept(s, err)
		return
	}
	if err != nil {
		s.Err = unavailable("messages cannot be kept now")
	}
	s.TS = s.Draft.TS
	s.hub.answer(s)
}

// answer hands one submission back.
func (h *Hub) answer(s *Submission) {
	d := h.newDelivery(0)
	d.answer(s)
	d.post()
}

// submissionsOf are a batch's submissions: its own, or made of the bytes of a log. The latter have been answered.
func (h *Hub) submissionsOf(b mq.Batch) ([]*Submission, error) {
	subs := make([]*Submission, 0, len(b.Records)+len(b.Bodies))
	for _, r := range b.Records {
		subs = append(subs, r.(*Submission))
	}
	for i, body := range b.Bodies {
		d, from, err := decodeRecord(body)
		if err != nil {
			return nil, fmt.Errorf("record %d of a batch of partition %d: %w", i, b.Partition, err)
		}
		s := h.NewSubmission(d.ID, d.Content)
		d.ID, d.Content = s.Draft.ID, s.Draft.Content
		s.Draft, s.from, s.Done, s.submitted = d, from, h.answerOrigin, time.UnixMilli(d.TS)
		subs = append(subs, s)
	}
	return subs, nil
}

var errRecord = errors.New("malformed record")

// decodeRecord is the inverse of AppendRecord. ID and Content alias b.
func decodeRecord(b []byte) (d store.Draft, from origin, err error) {
	if len(b) < 3+len(d.MsgID) || b[0] != recordVersion {
		return d, from, errRecord
	}
	d.Kind, d.Promised = store.Kind(b[1]), b[2] != 0
	b = b[3:]
	b = b[copy(d.MsgID[:], b):]
	var target int64
	for _, n := range [...]*int64{&d.Type, &d.TS, &d.RecallAfter, &target} {
		var size int
		if *n, size = binary.Varint(b); size <= 0 {
			return d, from, errRecord
		}
		b = b[size:]
	}
	d.Target = uint64(target)
	var fields [5][]byte
	for i := range fields {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			return d, from, errRecord
		}
		fields[i], b = b[size:size+int(n)], b[size+int(n):]
	}
	d.From, d.Conv, d.ID, d.Content = string(fields[0]), string(fields[1]), fields[2], fields[3]
	from.node = string(fields[4])
	for _, n := range [...]*uint64{&from.ref, &from.token} {
		var size int
		if *n, size = binary.Uvarint(b); size <= 0 {
			return d, from, errRecord
		}
		b = b[size:]
	}
	return d, from, nil
}
