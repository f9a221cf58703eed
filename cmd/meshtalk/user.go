package main

import "github.com/spf13/cobra"

func newUser(e environment) *cobra.Command {
	cmd := family("user", "Show users and end their sessions through the HTTP API")
	a := addAdmin(cmd, e.env)
	cmd.AddCommand(newUserShow(a), newUserKick(a))
	return cmd
}

func newUserShow(a *admin) *cobra.Command {
	return &cobra.Command{
		Use: "show USER", Short: "Print where a user is online, and the state of the inbox", Args: names(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.tell(cmd, "GET", "/v1/users/"+segment(args[0]), nil)
		},
	}
}

func newUserKick(a *admin) *cobra.Command {
	var body struct {
		Terminal string `json:"terminal,omitempty"`
		Reason   string `json:"reason,omitempty"`
	}
	cmd := &cobra.Command{
		Use: "kick USER", Short: "Close a user's sessions", Args: names(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if body.Terminal != "" {
				if err := checkName("terminal", body.Terminal, maxTerminal); err != nil {
					return err
				}
			}
			return a.tell(cmd, "POST", "/v1/users/"+segment(args[0])+"/kick", body)
		},
	}
	cmd.Flags().StringVar(&body.Terminal, "terminal", "", "only the session of this terminal")
	cmd.Flags().StringVar(&body.Reason, "reason", "", "text that the client is told")
	return cmd
}
