package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/meshtalk/meshtalk/codec"
)

func newGroup(e environment) *cobra.Command {
	cmd := family("group", "Make, show, change and delete groups through the HTTP API")
	a := addAdmin(cmd, e.env)
	cmd.AddCommand(
		&cobra.Command{
			Use: "put GROUP [USER…]", Short: "Make a group, or give it exactly these members",
			Long: "Make a group. With users, its members are exactly these afterwards; without, the list stays as it is.",
			Args: names(1, -1),
			RunE: func(cmd *cobra.Command, args []string) error {
				body := map[string]any{}
				if len(args) > 1 {
					body["members"] = args[1:]
				}
				return a.tell(cmd, "PUT", groupPath(args[0]), body)
			},
		},
		&cobra.Command{
			Use: "get GROUP", Short: "Print a group's size, kind and newest sequence number", Args: names(1, 1),
			RunE: func(cmd *cobra.Command, args []string) error { return a.tell(cmd, "GET", groupPath(args[0]), nil) },
		},
		&cobra.Command{
			Use: "delete GROUP", Short: "Delete a group; its history stays", Args: names(1, 1),
			RunE: func(cmd *cobra.Command, args []string) error { return a.tell(cmd, "DELETE", groupPath(args[0]), nil) },
		},
		&cobra.Command{
			Use: "add GROUP USER…", Short: "Add members", Args: names(2, -1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.tell(cmd, "POST", groupPath(args[0])+"/members", map[string]any{"add": args[1:]})
			},
		},
		&cobra.Command{
			Use: "remove GROUP USER…", Short: "Remove members", Args: names(2, -1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.tell(cmd, "POST", groupPath(args[0])+"/members", map[string]any{"remove": args[1:]})
			},
		},
	)
	return cmd
}

func groupPath(group string) string { return "/v1/groups/" + segment(group) }

// names wants at least and at most so many arguments (-1 = any number), each a name.
func names(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return usage("%s: expected %s", cmd.CommandPath(), cmd.Use)
		}
		for _, name := range args {
			if !codec.ValidName(name, maxName) {
				return &exitError{exitUsage, fmt.Errorf("%.80q is no name (expected 1 to %d bytes of UTF-8 without control characters, ':' and '/')", name, maxName)}
			}
		}
		return nil
	}
}
