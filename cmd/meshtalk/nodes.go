package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// clusterNode is one of GET /v1/nodes.
type clusterNode struct {
	Node        string        `json:"node"`
	Address     string        `json:"address"`
	Since       int64         `json:"since"` // ms
	Connections int64         `json:"connections"`
	Sessions    int64         `json:"sessions"`
	Queues      []int         `json:"queues"`
	Lag         map[int]int64 `json:"lag"`
}

func newNodes(e environment) *cobra.Command {
	cmd := &cobra.Command{
		Use: "nodes", Short: "Show the live nodes, which queues of the log each owns, and what these are behind", Args: cobra.NoArgs,
		Long: "Show the live nodes as one of them sees them: since when, connections, sessions, and of a cluster the queues of the log that each\n" +
			"owns, with what they are behind in batches.",
	}
	a := addAdmin(cmd, e.env)
	asJSON := cmd.Flags().Bool("json", false, "print the API's answer")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return showNodes(ctx, cmd, a, *asJSON)
	}
	return cmd
}

func showNodes(ctx context.Context, cmd *cobra.Command, a *admin, asJSON bool) error {
	answer, err := a.call(ctx, "GET", "/v1/nodes", nil)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(cmd, answer)
	}
	var list struct{ Nodes []clusterNode }
	if err := json.Unmarshal(answer, &list); err != nil {
		return failure(fmt.Errorf("the answer to GET /v1/nodes: %w", err))
	}
	return failure(printNodes(cmd.OutOrStdout(), list.Nodes))
}

// printNodes writes a line for each node, and then for each queue that has an owner.
func printNodes(out io.Writer, nodes []clusterNode) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	sayf(w, "NODE\tADDRESS\tSINCE\tCONNECTIONS\tSESSIONS\tQUEUES\n")
	type owned struct {
		queue int
		node  string
		lag   int64
	}
	var queues []owned
	for _, n := range nodes {
		since := time.UnixMilli(n.Since).UTC().Format(time.DateTime)
		sayf(w, "%s\t%s\t%s\t%d\t%d\t%d\n", n.Node, cmp.Or(n.Address, "-"), since, n.Connections, n.Sessions, len(n.Queues))
		for _, q := range n.Queues {
			queues = append(queues, owned{q, n.Node, n.Lag[q]})
		}
	}
	if err := w.Flush(); err != nil || len(queues) == 0 {
		return err
	}
	slices.SortFunc(queues, func(a, b owned) int { return cmp.Or(a.queue-b.queue, strings.Compare(a.node, b.node)) })
	sayf(w, "\nQUEUE\tOWNER\tLAG\n")
	for _, q := range queues {
		sayf(w, "%d\t%s\t%d\n", q.queue, q.node, q.lag)
	}
	return w.Flush()
}
