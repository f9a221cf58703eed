package bench

import (
	"context"
	"fmt"
	"io"
)

// Worker does one piece of work that a coordinator tells it on in, and answers on out: it is what "meshbench worker" runs.
// It ends early when in ends.
func Worker(ctx context.Context, in io.Reader, out io.Writer) error {
	k := newLink(in, out)
	m, err := k.receive()
	if err == io.EOF {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case m.Sink != nil:
		err = m.Sink.run(ctx, k)
	default:
		err = fmt.Errorf("bench: worker: do not know what to do")
	}
	if err != nil {
		if told := k.send(message{Error: err.Error()}); told != nil {
			return err
		}
	}
	return nil
}
