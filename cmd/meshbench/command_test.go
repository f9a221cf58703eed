package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/meshtalk/meshtalk/bench"
)

func TestUsage(t *testing.T) {
	for _, args := range []string{
		"worker --listen 0.0.0.0:0",                // a network without a token
		"private",                                  // no way to get tokens
		"private --nonsense",                       //
		"private --token-command x extra",          //
		"idle --sources nowhere --token-command x", //
		"suite --only p10",                         // P10 is one
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

func TestWorkersOnTheNetwork(t *testing.T) {
	l, err := listenWorker("127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serveWorker(ctx, l, bench.WorkerHandler("", bench.WorkerOptions{})) }()
	var out bytes.Buffer
	cmd := newCommand()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"run", "--local", "--server", meshtalk(t), "private", "--workers", l.Addr().String(), "--pairs", "3", "--in-flight", "2",
		"--warmup", "100ms", "--duration", "300ms", "--json"})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	var r bench.Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || !r.OK || r.Processes != 1 || r.Messages == nil || r.Messages.Delivered == 0 {
		t.Errorf("%v: %s", err, out.String())
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
