package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/meshtalk/meshtalk/bench"
)

func TestUsage(t *testing.T) {
	for _, args := range []string{
		"private",                                  // no way to get tokens
		"private --nonsense",                       //
		"private --token-command x extra",          //
		"idle --sources nowhere --token-command x", //
	} {
		cmd := newCommand()
		cmd.SetArgs(strings.Fields(args))
		if err := cmd.ExecuteContext(t.Context()); !errors.Is(err, errUsage) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestResultIsPrinted(t *testing.T) {
	r := &bench.Result{Scenario: "private", Connections: 2, Seconds: 1, Messages: &bench.Messages{Sent: 5, DeliveredRate: 5},
		Delivery: &bench.Latency{Count: 5, P99: 1.5}, Failures: map[string]int{"order": 2}, Evidence: []string{"user a got 3 after 1"}}
	for _, asJSON := range []bool{false, true} {
		var out bytes.Buffer
		if err := (&printer{out: &out, asJSON: asJSON}).result(r); err != nil {
			t.Fatal(err)
		}
		if asJSON {
			var back bench.Result
			if err := json.Unmarshal(out.Bytes(), &back); err != nil || back.Delivery == nil || back.Delivery.P99 != 1.5 {
				t.Errorf("JSON came back as %+v, %v", back, err)
			}
			continue
		}
		for _, want := range []string{"p99 1.50", "order: 2 times", "user a got 3 after 1"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %q in\n%s", want, out.String())
			}
		}
	}
}
