package main

import (
	"crypto/rand"

	"github.com/spf13/cobra"
)

// sendRequest is the body of POST /v1/messages.
type sendRequest struct {
	ID        string `json:"id"`
	From      string `json:"from,omitempty"`
	To        string `json:"to,omitempty"`
	Group     string `json:"group,omitempty"`
	Type      int64  `json:"type,omitempty"`
	Content   string `json:"content"`
	Ephemeral bool   `json:"ephemeral,omitempty"`
}

func newSend(e environment) *cobra.Command {
	var r sendRequest
	cmd := &cobra.Command{
		Use: "send --to U | --group G TEXT", Short: "Send a message through the HTTP API",
		Long: "Send a message through the HTTP API, as a user or, without --from, as the system. It is kept when the answer is printed.",
		Args: cobra.ExactArgs(1),
	}
	a := addAdmin(cmd, e.env)
	cmd.Flags().StringVar(&r.To, "to", "", "user to send to")
	cmd.Flags().StringVar(&r.Group, "group", "", "group to send to")
	cmd.Flags().StringVar(&r.From, "from", "", "user to send as; empty = the system")
	cmd.Flags().StringVar(&r.ID, "id", "", "id of the message: the same id again is the same message; empty = a new one")
	cmd.Flags().Int64Var(&r.Type, "type", 0, "type of the content; 0 = text")
	cmd.Flags().BoolVar(&r.Ephemeral, "ephemeral", false, "only to who is online now, kept nowhere")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if (r.To == "") == (r.Group == "") {
			return usage("--to, --group: expected one of them")
		}
		for flag, name := range map[string]string{"to": r.To, "group": r.Group, "from": r.From} {
			if name != "" {
				if err := checkName(flag, name, maxName); err != nil {
					return err
				}
			}
		}
		if r.ID == "" {
			r.ID = rand.Text()
		}
		r.Content = args[0]
		return a.tell(cmd, "POST", "/v1/messages", r)
	}
	return cmd
}
