package api

import (
	"context"
	"encoding/json"
	"time"

	"github.com/meshtalk/meshtalk/codec"
)

// Push is what POST /v1/messages does, for a body that came by the push topic. result is the event push.result that answers it,
// also for a body that is nothing of the kind. With again nothing was promised for want of a service: the same body is to come
// again, and there is no result yet.
func Push(ctx context.Context, hub Hub, o Options, body []byte) (result []byte, again bool) {
	s := &server{hub: hub, o: o}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	event := struct {
		Event   string          `json:"event"`
		TS      int64           `json:"ts"`
		Node    string          `json:"node"`
		ID      string          `json:"id,omitempty"`
		Results json.RawMessage `json:"results,omitempty"`
		Error   *problem        `json:"error,omitempty"`
	}{Event: "push.result", Node: o.Node}
	answer, err := s.push(ctx, body, &event.ID)
	if err != nil {
		s.logInternal("a push", err)
		e := refusal(err)
		if e.Code == codec.CodeUnavailable {
			return nil, true
		}
		event.Error = problemOf(e)
	}
	var results struct {
		Results json.RawMessage `json:"results"`
	}
	if err == nil && json.Unmarshal(answer, &results) == nil {
		event.Results = results.Results
	}
	event.TS = time.Now().UnixMilli()
	if result, err = encode(event); err != nil { // strings and numbers always encode
		return nil, false
	}
	return result, false
}

// push reads the body as the HTTP call would. id is the request's as far as it has one.
func (s *server) push(ctx context.Context, body []byte, id *string) ([]byte, error) {
	if len(body) > maxBody {
		return nil, refuse(codec.CodeTooLarge, "the body is larger than 1 MiB")
	}
	in := &input{}
	if err := in.parse(body); err != nil {
		return nil, err
	}
	_ = json.Unmarshal(in.fields["id"], id) // anything else than a string is refused below
	return s.postMessages(ctx, in)
}
