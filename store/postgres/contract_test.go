package postgres

import (
	"testing"

	"github.com/meshtalk/meshtalk/store"
	"github.com/meshtalk/meshtalk/store/storetest"
)

func TestContract(t *testing.T) { t.Parallel(); contract(t, false) }

// TestContractSmall is the contract with next to no memory of names.
func TestContractSmall(t *testing.T) { t.Parallel(); contract(t, true) }

func contract(t *testing.T, small bool) {
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		o := testOptions(t)
		o.Retention, o.DedupeWindow, o.InboxLimit = storetest.Retention, storetest.DedupeWindow, storetest.InboxLimit
		o.MaxConns = 6
		if small {
			o.names = 2
		}
		return storetest.Backend{
			Offsets: true,
			Open:    func() store.Store { return openTest(t, o) },
			OpenOutbox: func() store.Store {
				o := o
				o.Outbox = true
				return openTest(t, o)
			},
		}
	})
}
