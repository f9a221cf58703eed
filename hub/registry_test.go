package hub

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func newRegistry() *registry {
	r := new(registry)
	r.init()
	return r
}

func TestRegistryReplaces(t *testing.T) {
	r := newRegistry()
	if old, alone, _ := r.add("u", "web", 1, 1); old != 0 || !alone {
		t.Errorf("the first session: old %v, alone %v", old, alone)
	}
	if old, alone, _ := r.add("u", "web", 2, 1); old != 1 || alone {
		t.Errorf("the second of the same terminal: old %v, alone %v", old, alone)
	}
	if r.remove("u", "web", 1) {
		t.Error("a replaced session took its successor away")
	}
	if got := r.refs(nil, "u"); !slices.Equal(got, []Ref{2}) {
		t.Errorf("refs %v", got)
	}
	if !r.remove("u", "web", 2) || r.users() != 0 {
		t.Errorf("%d users are left", r.users())
	}
}

// The registry holds what a map of maps would.
func TestRegistryModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, model := newRegistry(), map[string]map[string]Ref{}
		next := Ref(0)
		name := rapid.SampledFrom([]string{"web", "ios", "tv", "watch"})
		user := rapid.SampledFrom([]string{"alice", "bob"})
		t.Repeat(map[string]func(*rapid.T){
			"login": func(t *rapid.T) {
				u, n := user.Draw(t, "user"), name.Draw(t, "terminal")
				next++
				old, alone, _ := r.add(u, n, next, 1)
				if old != model[u][n] || alone != (len(model[u]) == 0) {
					t.Fatalf("add gave old %v alone %v, model %v", old, alone, model[u])
				}
				if model[u] == nil {
					model[u] = map[string]Ref{}
				}
				model[u][n] = next
			},
			"logout": func(t *rapid.T) {
				u, n := user.Draw(t, "user"), name.Draw(t, "terminal")
				ref := rapid.SampledFrom([]Ref{model[u][n], next + 1}).Draw(t, "ref")
				want := ref != 0 && model[u][n] == ref
				if got := r.remove(u, n, ref); got != want {
					t.Fatalf("remove gave %v, want %v", got, want)
				}
				if want {
					delete(model[u], n)
				}
			},
			"": func(t *rapid.T) {
				for _, u := range []string{"alice", "bob"} {
					var want []Ref
					for _, ref := range model[u] {
						want = append(want, ref)
					}
					got := r.refs(nil, u)
					slices.Sort(got)
					slices.Sort(want)
					if !slices.Equal(got, want) {
						t.Fatalf("%s has %v, want %v", u, got, want)
					}
				}
			},
		})
	})
}

func TestAdvanceOnlyForward(t *testing.T) {
	r := newRegistry()
	if _, moved := r.advance("u", 1); moved {
		t.Error("moved a user who is not here")
	}
	r.add("u", "web", 1, 1)
	for _, step := range []struct {
		n, from uint64
		moved   bool
	}{{3, 0, true}, {3, 0, false}, {2, 0, false}, {9, 3, true}} {
		if from, moved := r.advance("u", step.n); from != step.from || moved != step.moved {
			t.Errorf("advance to %d: from %d, moved %v", step.n, from, moved)
		}
	}
}

func BenchmarkRegistryRefs(b *testing.B) {
	r := newRegistry()
	names := make([]string, 10000)
	for i := range names {
		names[i] = fmt.Sprintf("user%d", i)
		r.add(names[i], "web", Ref(i+1), 1)
	}
	refs := make([]Ref, 0, 4)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		refs = r.refs(refs[:0], names[i%len(names)])
	}
}

// The later LOGIN is the newer login, in whichever order they come here.
func TestRegistryOrder(t *testing.T) {
	var r registry
	r.init()
	r.add("u", "web", 2, 20)
	if old, alone, late := r.add("u", "web", 1, 10); !late || old != 0 || alone {
		t.Errorf("an earlier LOGIN that comes late: %v, %v, %v", old, alone, late)
	}
	if r.current("u", "web") != 2 {
		t.Errorf("the session is %v", r.current("u", "web"))
	}
	if old, _, late := r.add("u", "phone", 1, 10); late || old != 0 {
		t.Errorf("another terminal: %v, %v", old, late)
	}
	if old, _, late := r.add("u", "web", 3, 30); late || old != 2 {
		t.Errorf("a later LOGIN: %v, %v", old, late)
	}
}
