package api

import (
	"context"

	"github.com/meshtalk/meshtalk/codec"
	"github.com/meshtalk/meshtalk/store"
)

// Pages of history, as for HISTORY.
const (
	defaultHistory = 50
	maxHistory     = 200
)

var (
	errNoConversation = refuse(codec.CodeNotFound, "no such conversation")
	errNoMessage      = refuse(codec.CodeNotFound, "no such message")
)

// conversation is the conversation in the path; a malformed one is NOT_FOUND.
func (in *input) conversation() string {
	conv := in.r.PathValue("conv")
	kind, a, b := store.ConvKind(conv)
	if kind == 0 || !codec.ValidName(a, codec.MaxName) || (kind == 'p' && !codec.ValidName(b, codec.MaxName)) {
		in.wrong(errNoConversation)
		return ""
	}
	return conv
}

func (s *server) getMessages(ctx context.Context, in *input) ([]byte, error) {
	conv := in.conversation()
	before, after, limit := in.seqParam("before"), in.seqParam("after"), in.limit(defaultHistory, maxHistory)
	if before != nil && after != nil {
		in.wrong(bad("both before and after"))
	}
	if err := in.done(); err != nil {
		return nil, err
	}
	messages, more, err := s.hub.Messages(ctx, conv, before, after, limit)
	if err != nil {
		return nil, err
	}
	return codec.AppendHistoryData(nil, conv, messages, more), nil
}

func (s *server) deleteMessage(ctx context.Context, in *input) ([]byte, error) {
	conv := in.conversation()
	seq, ok := readSeq(in.r.PathValue("seq"))
	switch {
	case !ok:
		in.wrong(bad("the seq in the path is not a sequence number"))
	case seq == 0: // they begin at 1
		in.wrong(errNoMessage)
	}
	if err := in.done(); err != nil {
		return nil, err
	}
	event, err := s.hub.RecallMessage(ctx, conv, seq)
	if err != nil {
		return nil, err
	}
	return encode(map[string]uint64{"seq": event})
}
