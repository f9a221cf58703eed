package bench_test

import (
	"testing"

	"github.com/meshtalk/meshtalk/bench"
)

func TestStorm(t *testing.T) {
	o := options(t)
	so := bench.StormOptions{Clients: 40, Messages: 5, Rounds: 2}
	r, err := bench.Storm(t.Context(), o, so)
	mustPass(t, r, err, so.Clients)
	if r.Storm == nil || len(r.Storm.Rounds) != so.Rounds {
		t.Fatalf("got %+v", r.Storm)
	}
	for _, round := range r.Storm.Rounds {
		if round.CaughtUp != so.Clients || round.AllCaughtUp <= 0 || round.LoginSeconds <= 0 || round.LoginSeconds > round.AllCaughtUp {
			t.Errorf("round %+v", round)
		}
	}
	if n := int64(so.Clients * so.Rounds); r.Storm.CatchUp.Count != n || r.Storm.Login.Count != n {
		t.Errorf("counted %+v, %+v", r.Storm.CatchUp, r.Storm.Login)
	}
}
