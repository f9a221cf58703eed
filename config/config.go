// Package config reads the configuration of a server: defaults < YAML file < environment < flags.
//
// Every key stands once, in the table of keys.go: its name is the path in the file, the flag, and with another spelling
// the environment variable. The keys, what is refused and the file of the original server are described in
// docs/INTERFACES.md §2.
package config

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/meshtalk/meshtalk/server"
)

// Config is a configuration that has been read and checked.
type Config struct {
	// Options are what server.New takes. Logger and LogLevel are not set: see Config.Logger.
	Options server.Options
	// LogLevel and LogFormat are log.level (debug, info, warn, error) and log.format (text, json).
	LogLevel, LogFormat string
	// Ignored are the keys of the original server's file that mean nothing here, sorted.
	Ignored []string

	origins map[string]string // by key; a key that is not there has its default
}

// Sources are where values come from, the later ones win.
type Sources struct {
	File    string   // YAML; "" = the environment's MESHTALK_CONFIG, or none
	Environ []string // NAME=value, as os.Environ gives it
	Flags   []Flag   // in the order in which they were given
}

// Flag is a value from the command line.
type Flag struct{ Name, Value string }

// fileVariable names the file like --config does.
const fileVariable = envPrefix + "CONFIG"

// defaults are the values without any source.
func defaults() *Config {
	c := &Config{Options: server.DefaultOptions(), LogLevel: "info", LogFormat: "text", origins: map[string]string{}}
	c.Options.Redis.Port = 6379 // counts once there is a redis.host
	return c
}

// Load reads and checks the sources. An error is one line that names the key, where its value stands, and what was
// expected; it never contains a secret.
func Load(src Sources) (*Config, error) {
	c := defaults()
	env, file, err := readEnviron(src.Environ)
	if err != nil {
		return nil, err
	}
	if src.File != "" {
		file = src.File
	}
	var values []value
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
		if values, c.Ignored, err = readFile(file, text); err != nil {
			return nil, err
		}
	}
	values = append(values, env...)
	for _, f := range src.Flags {
		values = append(values, value{key: f.Name, text: f.Value, origin: "flag --" + f.Name})
	}
	for _, v := range values {
		if err := c.set(v); err != nil {
			return nil, err
		}
	}
	c.derive()
	return c, c.check()
}

// set gives v to its key.
func (c *Config) set(v value) error {
	f, ok := lookup(v.key)
	if !ok {
		return fmt.Errorf("%s (%s): unknown key; the nearest one is %s", v.key, v.origin, Nearest(v.key))
	}
	if f.Secret && strings.Contains(v.text, mask) { // as a token or a key everybody would know it
		return f.refuse("", v.origin, "the secret itself, not the mask that config print writes")
	}
	if expected := f.parse(c, v); expected != "" {
		return f.refuse(v.shown(f), v.origin, expected)
	}
	c.origins[v.key] = v.origin
	return nil
}

// derive fills in the defaults that depend on something else.
func (c *Config) derive() {
	o := &c.Options
	if c.isDefault("heartbeat.interval") && o.HeartbeatInterval >= o.HeartbeatTimeout {
		o.HeartbeatInterval = o.HeartbeatTimeout / 4
		c.origins["heartbeat.interval"] = "default, a quarter of heartbeat.timeout"
	}
	if name, err := os.Hostname(); err == nil && o.Cluster.NodeID == "" {
		o.Cluster.NodeID = name
		c.origins["cluster.node-id"] = "default, the host name"
	}
}

func (c *Config) isDefault(key string) bool { return strings.HasPrefix(c.Origin(key), "default") }

// Origin is where the value of a key came from: "default", "file F line 3", "env NAME" or "flag --name".
func (c *Config) Origin(key string) string {
	if o, ok := c.origins[key]; ok {
		return o
	}
	return "default"
}

// Level is log.level.
func (c *Config) Level() slog.Level {
	var l slog.Level
	_ = l.UnmarshalText([]byte(c.LogLevel)) // was checked
	return l
}

// Logger writes to w as log.format says, what is at or above level; setting level changes it while it is used.
func (c *Config) Logger(w io.Writer, level *slog.LevelVar) *slog.Logger {
	level.Set(c.Level())
	o := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// Warning is the one line about Ignored keys, "" when there are none.
func (c *Config) Warning() string {
	if len(c.Ignored) == 0 {
		return ""
	}
	return "ignored keys of the original server: " + strings.Join(c.Ignored, ", ")
}
