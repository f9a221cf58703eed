package config

import (
	"strings"

	"github.com/meshtalk/meshtalk/server"
)

// reloads reports whether server.Reload takes a key over while the server runs.
func reloads(key string) bool {
	return key == "log.level" || strings.HasPrefix(key, "auth.jwt.") || strings.HasPrefix(key, "limits.messages-")
}

// NeedRestart names the keys that differ between two configurations and that only a restart takes over.
func NeedRestart(running, next *Config) (keys []string) {
	for _, f := range fields() {
		if !reloads(f.Name) && f.text(running) != f.text(next) {
			keys = append(keys, f.Name)
		}
	}
	return keys
}

// Effective are the settings of a server that was started with running and has reloaded next.
func Effective(running, next *Config) []server.Setting {
	list := running.Settings()
	for i, s := range next.Settings() {
		switch {
		case reloads(s.Key):
			list[i] = s
		case s.Value != list[i].Value:
			list[i].Origin += "; changed since, wants a restart"
		}
	}
	return list
}
