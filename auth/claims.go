package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

// claims are the parts of a token that count. It is a jwt.Claims, so that the library judges times, issuer and audience.
type claims struct {
	user, terminal string
	exp, nbf, iat  numericDate
	issuer         string
	audience       jwt.ClaimStrings
}

// numericDate is a NumericDate of RFC 7519 in ms, fractions included; the library's own drops them.
type numericDate struct {
	ms   int64
	set  bool
	date jwt.NumericDate
}

// maxSeconds is the largest NumericDate taken: year 9999.
const maxSeconds = 253402300799

func (d *numericDate) read(value []byte) error {
	f, err := strconv.ParseFloat(string(value), 64) // more than JSON's numbers, but value is valid JSON
	if err != nil || f < 0 || f > maxSeconds {
		return errors.New("token with a time that is none")
	}
	d.ms, d.set = int64(math.Round(f*1000)), true
	d.date.Time = time.UnixMilli(d.ms)
	return nil
}

func (d *numericDate) get() (*jwt.NumericDate, error) {
	if !d.set {
		return nil, nil //nolint:nilnil // the library's way to say absent
	}
	return &d.date, nil
}

// read takes the claims out of a payload. A claim that counts may stand once; null is as good as absent.
func (c *claims) read(payload []byte, seed bool) error {
	*c = claims{audience: c.audience[:0]}
	var raw struct{ sub, terminal, exp, nbf, iat, iss, aud, info []byte }
	place := func(name []byte) *[]byte {
		switch string(name) {
		case "sub":
			return &raw.sub
		case "terminal":
			return &raw.terminal
		case "exp":
			return &raw.exp
		case "nbf":
			return &raw.nbf
		case "iat":
			return &raw.iat
		case "iss":
			return &raw.iss
		case "aud":
			return &raw.aud
		case "info":
			return &raw.info
		}
		return nil
	}
	err := members(payload, func(name, value []byte) error {
		switch p := place(name); {
		case p == nil:
		case *p != nil:
			return errors.New("token with a claim that stands twice")
		default:
			*p = value
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, d := range []struct {
		value []byte
		date  *numericDate
	}{{raw.exp, &c.exp}, {raw.nbf, &c.nbf}, {raw.iat, &c.iat}} {
		if absent(d.value) {
			continue
		}
		if err = d.date.read(d.value); err != nil {
			return err
		}
	}
	if !absent(raw.iss) {
		c.issuer, _ = text(raw.iss) // what is no text is no issuer
	}
	c.readAudience(raw.aud)
	if seed && absent(raw.sub) {
		return c.readSeed(raw.info)
	}
	return c.readNames(raw.sub, raw.terminal)
}

func absent(value []byte) bool { return value == nil || string(value) == "null" }

var (
	errSubject  = errors.New("token without a valid subject")
	errTerminal = errors.New("token with an invalid terminal")
	errSeed     = errors.New("token with info that is not JSON of userId and terminal")
)

func (c *claims) readNames(sub, terminal []byte) (err error) {
	if c.user, err = name(sub, maxUser, errSubject); err != nil || absent(terminal) {
		return err
	}
	c.terminal, err = name(terminal, maxTerminal, errTerminal)
	return err
}

// readAudience reads aud: a name or a list of names. What is neither is no audience.
func (c *claims) readAudience(value []byte) {
	if absent(value) {
		return
	}
	list := []json.RawMessage{value}
	if value[0] == '[' && json.Unmarshal(value, &list) != nil {
		return
	}
	for _, v := range list {
		s, ok := text(v)
		if !ok {
			s = digits(v)
		}
		c.audience = append(c.audience, s)
	}
}

// readSeed reads the claims of the original server: aud is the user, info is JSON {userId, terminal}, itself or as a string.
func (c *claims) readSeed(info []byte) error {
	var user, terminal []byte
	if !absent(info) {
		if info[0] == '"' {
			s, ok := text(info)
			if !ok {
				return errSeed
			}
			info = []byte(s)
		}
		if err := members(info, func(name, value []byte) error {
			switch string(name) {
			case "userId":
				user = value
			case "terminal":
				terminal = value
			}
			return nil
		}); err != nil {
			return errSeed
		}
	}
	if len(c.audience) != 1 {
		return c.readNames(user, terminal)
	}
	c.user = c.audience[0]
	if !validName(c.user, maxUser) {
		return errSubject
	}
	if !absent(user) {
		if other, err := name(user, maxUser, errSubject); err != nil || other != c.user {
			return errors.New("token whose aud and info name different users")
		}
	}
	var err error
	if !absent(terminal) {
		c.terminal, err = name(terminal, maxTerminal, errTerminal)
	}
	return err
}

// identity is what valid claims say.
func (c *claims) identity() (Identity, error) {
	return Identity{User: c.user, Terminal: c.terminal, ExpiresAt: c.exp.ms, IssuedAt: c.iat.ms}, nil
}

// The longest names, in bytes: docs/PROTOCOL.md §2.
const (
	maxUser     = 64
	maxTerminal = 32
)

// name reads a user or terminal: a string, or an integer that means its decimal digits.
func name(value []byte, most int, wrong error) (string, error) {
	s, ok := text(value)
	if !ok {
		s = digits(value)
	}
	if !validName(s, most) {
		return "", wrong
	}
	return s, nil
}

// digits is the text of an integer, "" of anything else.
func digits(value []byte) string {
	if string(value) == "-0" {
		return "0"
	}
	for i, c := range value {
		if (c < '0' || c > '9') && (c != '-' || i > 0) {
			return ""
		}
	}
	return string(value)
}

// text is the string that a JSON value is. One with bytes that are no UTF-8 or with half a surrogate pair is refused: two
// different ones must not become the same name.
func text(value []byte) (string, bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	inner := value[1 : len(value)-1]
	if !utf8.Valid(inner) {
		return "", false
	}
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner), true
	}
	var s string
	if err := json.Unmarshal(value, &s); err != nil || strings.ContainsRune(s, utf8.RuneError) {
		return "", false
	}
	return s, true
}

// validName is docs/PROTOCOL.md §2: 1 to most bytes of UTF-8 without control characters, ':' and '/'.
func validName(s string, most int) bool {
	if s == "" || len(s) > most || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < ' ' || r >= 0x7F && r < 0xA0 || r == ':' || r == '/' {
			return false
		}
	}
	return true
}

// The methods of jwt.Claims.

// GetExpirationTime implements jwt.Claims.
func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return c.exp.get() }

// GetNotBefore implements jwt.Claims.
func (c *claims) GetNotBefore() (*jwt.NumericDate, error) { return c.nbf.get() }

// GetIssuedAt implements jwt.Claims.
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error) { return c.iat.get() }

// GetIssuer implements jwt.Claims.
func (c *claims) GetIssuer() (string, error) { return c.issuer, nil }

// GetSubject implements jwt.Claims.
func (c *claims) GetSubject() (string, error) { return c.user, nil }

// GetAudience implements jwt.Claims.
func (c *claims) GetAudience() (jwt.ClaimStrings, error) { return c.audience, nil }
