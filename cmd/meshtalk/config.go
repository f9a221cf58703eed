package main

import (
	"github.com/spf13/cobra"
)

func newConfig(e environment) *cobra.Command {
	return family("config", "Check or print the server's configuration", newConfigCheck(e), newConfigPrint(e))
}

func newConfigCheck(e environment) *cobra.Command {
	cmd := &cobra.Command{Use: "check", Short: "Say whether the configuration is right", Args: cobra.NoArgs}
	s := addSettings(cmd, e.env)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := s.load()
		if err != nil {
			return err
		}
		if w := c.Warning(); w != "" {
			say(cmd.ErrOrStderr(), "warning:", w)
		}
		say(cmd.OutOrStdout(), "ok")
		return nil
	}
	return cmd
}

func newConfigPrint(e environment) *cobra.Command {
	cmd := &cobra.Command{
		Use: "print", Short: "Print the effective configuration and where each value came from", Args: cobra.NoArgs,
		Long: "Print the effective configuration as YAML, with secrets masked, and as a comment where each value came from.",
	}
	s := addSettings(cmd, e.env)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := s.load()
		if err != nil {
			return err
		}
		y, err := c.YAML()
		if err != nil {
			return failure(err)
		}
		if w := c.Warning(); w != "" {
			say(cmd.ErrOrStderr(), "warning:", w)
		}
		_, err = cmd.OutOrStdout().Write(y)
		return failure(err)
	}
	return cmd
}
