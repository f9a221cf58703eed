package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

// claims are the parts of a token that count. It is a jwt.Claims.
type claims struct {
	seed bool // read the original server's claims too

	user, terminal string
	exp, nbf, iat  numericDate
	issuer         string
	audience       jwt.ClaimStrings
	info           json.RawMessage
}

// numericDate is a NumericDate of RFC 7519 in ms, fractions included; the library's own drops them.
type numericDate struct {
	ms  int64
	set bool
}

// maxSeconds is the largest NumericDate taken: year 9999.
const maxSeconds = 253402300799

// UnmarshalJSON implements json.Unmarshaler.
func (d *numericDate) UnmarshalJSON(b []byte) error {
	var f float64
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	if f < 0 || f > maxSeconds {
		return errors.New("time out of range")
	}
	d.ms, d.set = int64(math.Round(f*1000)), true
	return nil
}

func (d numericDate) date() (*jwt.NumericDate, error) {
	if !d.set {
		return nil, nil //nolint:nilnil // the library's way to say absent
	}
	return &jwt.NumericDate{Time: time.UnixMilli(d.ms)}, nil
}

// name is a user or terminal: a string, or an integer that means its decimal digits.
type name string

// UnmarshalJSON implements json.Unmarshaler.
func (n *name) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && (b[0] == '-' || b[0] >= '0' && b[0] <= '9') {
		for _, c := range b[1:] {
			if c < '0' || c > '9' {
				return errors.New("a name that is no integer")
			}
		}
		*n = name(b)
		return nil
	}
	return json.Unmarshal(b, (*string)(n))
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *claims) UnmarshalJSON(b []byte) error {
	var raw struct {
		Sub      name            `json:"sub"`
		Terminal name            `json:"terminal"`
		Exp      numericDate     `json:"exp"`
		Nbf      numericDate     `json:"nbf"`
		Iat      numericDate     `json:"iat"`
		Iss      string          `json:"iss"`
		Aud      json.RawMessage `json:"aud"`
		Info     json.RawMessage `json:"info"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	c.user, c.terminal, c.issuer, c.info = string(raw.Sub), string(raw.Terminal), raw.Iss, raw.Info
	c.exp, c.nbf, c.iat = raw.Exp, raw.Nbf, raw.Iat
	if err := c.readAudience(raw.Aud); err != nil {
		return err
	}
	if c.seed && c.user == "" {
		return c.readSeed()
	}
	return nil
}

// readAudience reads aud: a name or a list of names.
func (c *claims) readAudience(b json.RawMessage) error {
	if len(b) == 0 || bytes.Equal(b, []byte("null")) {
		return nil
	}
	var list []name
	if b[0] == '[' {
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
	} else {
		list = make([]name, 1)
		if err := json.Unmarshal(b, &list[0]); err != nil {
			return err
		}
	}
	for _, n := range list {
		c.audience = append(c.audience, string(n))
	}
	return nil
}

// readSeed reads the claims of the original server: aud is the user, info is JSON {userId, terminal}, itself or as a string.
func (c *claims) readSeed() error {
	if len(c.audience) == 1 {
		c.user = c.audience[0]
	}
	if len(c.info) == 0 {
		return nil
	}
	b := []byte(c.info)
	if b[0] == '"' {
		var text string
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
		b = []byte(text)
	}
	var info struct {
		UserID   name `json:"userId"`
		Terminal name `json:"terminal"`
	}
	if err := json.Unmarshal(b, &info); err != nil {
		return err
	}
	if c.user != "" && info.UserID != "" && string(info.UserID) != c.user {
		return errors.New("aud and info name different users")
	}
	if c.user == "" {
		c.user = string(info.UserID)
	}
	if c.terminal == "" {
		c.terminal = string(info.Terminal)
	}
	return nil
}

// identity is what valid claims say.
func (c *claims) identity() (Identity, error) {
	switch {
	case !validName(c.user, 64):
		return Identity{}, refused("token without a valid subject")
	case c.terminal != "" && !validName(c.terminal, 32):
		return Identity{}, refused("token with an invalid terminal")
	}
	return Identity{User: c.user, Terminal: c.terminal, ExpiresAt: c.exp.ms, IssuedAt: c.iat.ms}, nil
}

// validName is PROTOCOL §2: 1 to limit bytes of UTF-8 without control characters, ':' and '/'.
func validName(s string, limit int) bool {
	if s == "" || len(s) > limit || !utf8.ValidString(s) {
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

func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return c.exp.date() }
func (c *claims) GetNotBefore() (*jwt.NumericDate, error)      { return c.nbf.date() }
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error)       { return c.iat.date() }
func (c *claims) GetIssuer() (string, error)                   { return c.issuer, nil }
func (c *claims) GetSubject() (string, error)                  { return c.user, nil }

func (c *claims) GetAudience() (jwt.ClaimStrings, error) { return c.audience, nil }
