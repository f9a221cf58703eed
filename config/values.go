package config

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// value is what a source says about a key.
type value struct {
	key    string
	text   string
	list   []string // of a YAML sequence; text is empty then
	isList bool
	origin string
}

// shown is the value for an error's text, "" for a secret.
func (v value) shown(f field) string {
	switch {
	case f.Secret:
		return ""
	case v.isList:
		return fmt.Sprintf("%q", v.list)
	default:
		return strconv.Quote(v.text)
	}
}

// refuse is the error about a value; shown may be empty.
func (f field) refuse(shown, origin, expected string) error {
	if shown != "" {
		shown += " "
	}
	return fmt.Errorf("%s: %s(%s): expected %s", f.Name, shown, origin, expected)
}

func (f field) kind() Kind {
	switch f.at(new(Config)).(type) {
	case *bool:
		return Bool
	case *int:
		return Int
	case *time.Duration:
		return Duration
	case *[]string:
		return List
	default:
		return String
	}
}

// parse puts v where it belongs, or returns what was expected.
func (f field) parse(c *Config, v value) (expected string) {
	if v.isList && f.kind() != List {
		return "one value, not a list"
	}
	text := v.text
	switch p := f.at(c).(type) {
	case *bool:
		b, ok := parseBool(text)
		if !ok {
			return "true or false"
		}
		*p = b
	case *int:
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil {
			if f.check != nil {
				return f.check(nil)
			}
			return "a number"
		}
		*p = n
	case *time.Duration:
		d, ok := parseDuration(strings.TrimSpace(text))
		if !ok {
			return "a duration, such as 30s or 2m"
		}
		*p = d
	case *[]string:
		*p = v.list
		if !v.isList {
			*p = split(text)
		}
	case *string:
		*p = text
	}
	if f.check == nil {
		return ""
	}
	return f.check(f.get(c))
}

// get is the value of the key in c.
func (f field) get(c *Config) any {
	switch p := f.at(c).(type) {
	case *bool:
		return *p
	case *int:
		return *p
	case *time.Duration:
		return *p
	case *[]string:
		return *p
	case *string:
		return *p
	}
	return nil
}

// text is the value of the key in c as flags and the environment have it.
func (f field) text(c *Config) string {
	switch v := f.get(c).(type) {
	case time.Duration:
		return formatDuration(v)
	case []string:
		return strings.Join(v, ",")
	default:
		return fmt.Sprint(v)
	}
}

// mask is the text of a secret for people: nothing stays nothing.
const mask = "********"

var urlPassword = regexp.MustCompile(`([?&]password=)[^&#]*`)

// masked is the text of a secret without what is secret in it.
func (f field) masked(text string) string {
	if text == "" || !f.Secret {
		return text
	}
	u, err := url.Parse(text)
	if f.Name != "store.postgres.url" || err != nil {
		return mask
	}
	if _, has := u.User.Password(); has {
		// By hand: the parser would escape the asterisks.
		rest := text[strings.Index(text, "://")+3:]
		at := strings.LastIndex(strings.SplitN(rest, "/", 2)[0], "@")
		text = u.Scheme + "://" + url.User(u.User.Username()).String() + ":" + mask + rest[at:]
	}
	return urlPassword.ReplaceAllString(text, "${1}"+mask)
}

// parseBool reads what YAML 1.1, and so the original server, calls a boolean.
func parseBool(text string) (value, ok bool) {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "true", "yes", "on", "1":
		return true, true
	case "false", "no", "off", "0":
		return false, true
	}
	return false, false
}

// parseDuration reads a duration as Go writes it. A bare number is seconds below 1,000 and milliseconds from there, as the
// settings of the original server have both: time-outs of a quarter of an hour and of under a second are unheard of.
func parseDuration(text string) (time.Duration, bool) {
	if n, err := strconv.ParseInt(text, 10, 32); err == nil {
		if n < 1000 {
			return time.Duration(n) * time.Second, true
		}
		return time.Duration(n) * time.Millisecond, true
	}
	d, err := time.ParseDuration(text)
	return d, err == nil
}

// formatDuration leaves out the zeros that Go's String ends with: 2m, not 2m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// split takes a list apart at its commas.
func split(text string) []string {
	var list []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return slices.Clip(list)
}
