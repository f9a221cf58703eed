package codec

import "unicode/utf8"

// unescape appends the text of the inside of a JSON string to dst. It refuses lone surrogates, which no UTF-8 can spell.
func unescape(dst, raw []byte) (text []byte, ok bool) {
	for i := 0; i < len(raw); {
		c := raw[i]
		if c != '\\' {
			dst = append(dst, c)
			i++
			continue
		}
		if i+1 >= len(raw) {
			return dst, false
		}
		if raw[i+1] == 'u' {
			r, size := escapedRune(raw, i)
			if size == 0 {
				return dst, false
			}
			dst = utf8.AppendRune(dst, r)
			i += size
			continue
		}
		dst = append(dst, escapedByte(raw[i+1]))
		i += 2
	}
	return dst, true
}

// escapedRune reads \uXXXX or a pair of surrogates at i; size 0 is neither.
func escapedRune(raw []byte, i int) (r rune, size int) {
	r = hex4(raw, i+2)
	switch {
	case r < 0:
		return 0, 0
	case r < 0xD800 || r > 0xDFFF:
		return r, 6
	case r > 0xDBFF || i+8 > len(raw) || raw[i+6] != '\\' || raw[i+7] != 'u':
		return 0, 0
	}
	low := hex4(raw, i+8)
	if low < 0xDC00 || low > 0xDFFF {
		return 0, 0
	}
	return 0x10000 + (r-0xD800)<<10 + (low - 0xDC00), 12
}

// escapedByte is what a backslash and c mean.
func escapedByte(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}

// AppendString appends s as a JSON string. What is not UTF-8 in s becomes U+FFFD, so that a packet always is.
func AppendString(dst []byte, s string) []byte { return appendText(dst, s) }

// appendText is AppendString for strings and bytes.
func appendText[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			size := runeSize(s, i)
			if size == 0 {
				dst = append(append(dst, s[start:i]...), "\uFFFD"...)
				i++
				start = i
			}
			i += size
			continue
		}
		dst = appendEscape(append(dst, s[start:i]...), c)
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}

// runeSize is the length of the character at i, 0 if the bytes there are none.
func runeSize[T string | []byte](s T, i int) int {
	var window [utf8.UTFMax]byte
	n := copy(window[:], s[i:min(len(s), i+utf8.UTFMax)])
	r, size := utf8.DecodeRune(window[:n])
	if r == utf8.RuneError && size == 1 {
		return 0
	}
	return size
}

// appendEscape appends a quote, a backslash or a control character as JSON spells it inside a string.
func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	const hex = "0123456789abcdef"
	return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
}

// ValidName reports whether s is a user, group or (with most = MaxTerminal) terminal name: 1 to most bytes of UTF-8
// without control characters (U+0000–001F, U+007F–009F), ':' and '/'.
func ValidName(s string, most int) bool { return validName(s, most) }

// validName is ValidName for strings and bytes.
func validName[T string | []byte](s T, most int) bool {
	if len(s) == 0 || len(s) > most {
		return false
	}
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c < ' ' || c == 0x7F || c == ':' || c == '/' {
				return false
			}
			i++
			continue
		}
		size := runeSize(s, i)
		if size == 0 || c == 0xC2 && s[i+1] < 0xA0 { // C2 80 … C2 9F are U+0080 … U+009F
			return false
		}
		i += size
	}
	return true
}
