package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/meshtalk/meshtalk/config"
)

// settings are the flags of a command that reads the server's configuration: --config and one for every key.
type settings struct {
	env   []string
	file  string
	given []config.Flag
}

// addSettings gives cmd those flags.
func addSettings(cmd *cobra.Command, env []string) *settings {
	s := &settings{env: env}
	cmd.Flags().StringVar(&s.file, "config", "", "YAML file of settings")
	for _, k := range config.Keys() {
		v := &settingValue{s: s, key: k}
		f := cmd.Flags().VarPF(v, k.Name, "", k.Help)
		f.DefValue = k.Default
		if k.Kind == config.Bool {
			f.NoOptDefVal = "true"
		}
	}
	cmd.Flags().SortFlags = false
	return s
}

// load reads the configuration. It may be called again, on SIGHUP.
func (s *settings) load() (*config.Config, error) {
	c, err := config.Load(config.Sources{File: s.file, Environ: s.env, Flags: s.given})
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	return c, nil
}

// settingValue keeps what was given for a key; config judges it.
type settingValue struct {
	s    *settings
	key  config.Key
	text string
}

var _ pflag.Value = (*settingValue)(nil)

func (v *settingValue) String() string { return v.text }
func (v *settingValue) Type() string   { return string(v.key.Kind) }

func (v *settingValue) Set(text string) error {
	v.text = text
	v.s.given = append(v.s.given, config.Flag{Name: v.key.Name, Value: text})
	return nil
}
