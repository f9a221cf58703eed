package api

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf16"

	"github.com/meshtalk/meshtalk/codec"
)

// The readers below take one valid JSON value, as codec's do for packets.

// readName reads a name: a string, or an integer, which means its decimal digits.
func readName(value []byte, most int) (name string, ok bool) {
	if value[0] == '"' {
		name, ok = readText(value)
		return name, ok && codec.ValidName(name, most)
	}
	if string(value) == "-0" {
		return "0", true
	}
	digits := bytes.TrimPrefix(value, []byte("-"))
	for _, c := range digits {
		if c < '0' || c > '9' {
			return "", false
		}
	}
	return string(value), len(value) <= most
}

// readText reads a string. A lone surrogate, which no UTF-8 can spell, is refused: encoding/json would put U+FFFD there.
func readText(value []byte) (text string, ok bool) {
	if json.Unmarshal(value, &text) != nil || value[0] != '"' || hasLoneSurrogate(value) {
		return "", false
	}
	return text, true
}

// hasLoneSurrogate looks for \uD800…\uDFFF outside a pair.
func hasLoneSurrogate(value []byte) bool {
	for i := 0; i < len(value); i++ {
		if value[i] != '\\' {
			continue
		}
		i++ // the escaped byte
		r := escapedUnit(value, i)
		if !utf16.IsSurrogate(r) {
			continue
		}
		if i+5 >= len(value) || value[i+5] != '\\' || utf16.DecodeRune(r, escapedUnit(value, i+6)) == '\uFFFD' {
			return true
		}
		i += 10
	}
	return false
}

// escapedUnit is the unit of a \uXXXX whose u is at i, 0 if there is none.
func escapedUnit(value []byte, i int) rune {
	if i+5 > len(value) || value[i] != 'u' {
		return 0
	}
	n, err := strconv.ParseUint(string(value[i+1:i+5]), 16, 16)
	if err != nil {
		return 0
	}
	return rune(n)
}

// readSeq reads a sequence number, 0 ≤ n < 2^53, in decimal digits.
func readSeq(digits string) (n uint64, ok bool) {
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil && n < maxSeq
}
