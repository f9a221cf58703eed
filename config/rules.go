package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// The rules of single values: each returns what was expected, "" when the value is right.

const day = 24 * time.Hour

func between(low, high int) func(any) string {
	return func(v any) string {
		if n, ok := v.(int); ok && n >= low && n <= high {
			return ""
		}
		return fmt.Sprintf("a number, %d to %d", low, high)
	}
}

func port(v any) string {
	if n, ok := v.(int); ok && n >= 0 && n <= 65535 {
		return ""
	}
	return "a port, 0 to 65535"
}

func spans(low, high time.Duration) func(any) string {
	return func(v any) string {
		if d := v.(time.Duration); d >= low && d <= high {
			return ""
		}
		return fmt.Sprintf("a duration, %s to %s", formatDuration(low), formatDuration(high))
	}
}

func filled(what string) func(any) string {
	return func(v any) string {
		if v.(string) != "" {
			return ""
		}
		return what
	}
}

func oneOf(words ...string) func(any) string {
	return func(v any) string {
		if slices.Contains(words, v.(string)) {
			return ""
		}
		return strings.Join(words, ", ")
	}
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})$`)

func isHost(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil || hostName.MatchString(s)
}

func host(v any) string {
	if s := v.(string); s == "" || isHost(s) {
		return ""
	}
	return "an IP address or a host name, without a port"
}

func isAddress(s string) bool {
	h, p, err := net.SplitHostPort(s)
	if err != nil || !isHost(h) {
		return false
	}
	n, err := strconv.Atoi(p)
	return err == nil && n > 0 && n <= 65535
}

func address(v any) string {
	if s := v.(string); s == "" || isAddress(s) {
		return ""
	}
	return "host:port"
}

func addresses(v any) string {
	for _, s := range v.([]string) {
		if !isAddress(s) {
			return "a list of host:port"
		}
	}
	return ""
}

func nameServers(v any) string {
	s := v.(string)
	if s == "" {
		return ""
	}
	for part := range strings.SplitSeq(s, ";") {
		if !isAddress(strings.TrimSpace(part)) {
			return "host:port, several separated by semicolons"
		}
	}
	return ""
}

func urlPath(v any) string {
	s := v.(string)
	u, err := url.ParseRequestURI(s)
	if err == nil && strings.HasPrefix(s, "/") && u.Path == s && !strings.ContainsAny(s, "#? ") {
		return ""
	}
	return "a path such as /im"
}

func origins(v any) string {
	for _, s := range v.([]string) {
		u, err := url.Parse(s)
		if s != "null" && (err != nil || u.Host == "" || s != u.Scheme+"://"+u.Host) {
			return "origins such as https://chat.example.org, each scheme://host or scheme://host:port"
		}
	}
	return ""
}

func webURL(v any) string {
	s := v.(string)
	if s == "" {
		return ""
	}
	if u, err := url.Parse(s); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
		return ""
	}
	return "an http:// or https:// URL"
}

func postgresURL(v any) string {
	s := v.(string)
	if s == "" {
		return ""
	}
	if u, err := url.Parse(s); err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") {
		return ""
	}
	return "postgres://user:password@host/database"
}

func algorithms(v any) string {
	known := []string{"HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA"}
	for _, s := range v.([]string) {
		if !slices.Contains(known, s) {
			return "some of " + strings.Join(known, ", ")
		}
	}
	return ""
}

// printable is what fits into an Authorization header.
func printable(v any) string {
	for _, r := range v.(string) {
		if r <= ' ' || r > unicode.MaxASCII-1 {
			return "ASCII characters without spaces"
		}
	}
	return ""
}

var masterName = regexp.MustCompile(`^[A-Za-z0-9._-]*$`)

// sentinelMaster is a name as Sentinels take it.
func sentinelMaster(v any) string {
	if masterName.MatchString(v.(string)) {
		return ""
	}
	return "letters, digits, dots, dashes and underscores"
}

var topicName = regexp.MustCompile(`^[%A-Za-z0-9_-]{1,127}$`)

func topic(v any) string {
	if topicName.MatchString(v.(string)) {
		return ""
	}
	return "1 to 127 letters, digits, dashes and underscores"
}

// nodeID is a name as docs/PROTOCOL.md §2 has them.
func nodeID(v any) string {
	s := v.(string)
	if len(s) <= 64 && strings.IndexFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || r == ':' || r == '/' || r == unicode.ReplacementChar
	}) < 0 {
		return ""
	}
	return "at most 64 bytes without control characters, ':' and '/'"
}
