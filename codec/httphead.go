package codec

import "bytes"

// request is the head of an upgrade request. The slices alias the head.
type request struct {
	method, path, query, host, origin, key, version, token []byte

	upgrade    bool // Upgrade names websocket
	connection bool // Connection names upgrade
	selected   bool // SubProtocol was offered

	authorized bool   // an Authorization header was there
	bearer     []byte // the token among the sub-protocols
	absolute   bool   // the target was absolute, so its authority is the host
	hosts      int    // Host headers
}

// parseRequest reads a head that ends with the CRLF of its last line. Its errors are all 400: what is well-formed and
// still not wanted is for check.
func parseRequest(head []byte) (r request, no *refused) {
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	if no = r.requestLine(line); no != nil {
		return r, no
	}
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 || !isToken(line[:colon]) { // also a folded line, which begins with a space
			return r, &refused{400, "malformed header line"}
		}
		value := bytes.Trim(line[colon+1:], " \t")
		if !isFieldValue(value) {
			return r, &refused{400, "control character in a header"}
		}
		if no = r.header(line[:colon], value); no != nil {
			return r, no
		}
	}
	if r.hosts != 1 {
		return r, &refused{400, "not exactly one Host"}
	}
	if r.selected && r.token == nil {
		r.token = r.bearer
	}
	return r, nil
}

// requestLine reads "GET /im?x=y HTTP/1.1".
func (r *request) requestLine(line []byte) *refused {
	var target, version []byte
	var ok1, ok2 bool
	r.method, target, ok1 = bytes.Cut(line, []byte(" "))
	target, version, ok2 = bytes.Cut(target, []byte(" "))
	if !ok1 || !ok2 || !isTarget(target) {
		return &refused{400, "malformed request line"}
	}
	if string(version) != "HTTP/1.1" {
		return &refused{400, "only HTTP/1.1"}
	}
	if target[0] != '/' { // RFC 9112 §3.2.2: a server must take the absolute form too
		scheme, rest, ok := bytes.Cut(target, []byte("://"))
		if !ok || !isToken(scheme) {
			r.path = target
			return nil
		}
		slash := bytes.IndexAny(rest, "/?")
		if slash < 0 {
			slash = len(rest)
		}
		r.host, r.absolute = rest[:slash], true
		target = rest[slash:]
	}
	r.path, r.query, _ = bytes.Cut(target, []byte("?"))
	return nil
}

// header takes one header line.
func (r *request) header(name, value []byte) *refused {
	switch {
	case foldEqual(name, "host"):
		r.hosts++
		if !r.absolute {
			r.host = value
		}
	case foldEqual(name, "upgrade"):
		r.upgrade = r.upgrade || listHas(value, "websocket")
	case foldEqual(name, "connection"):
		r.connection = r.connection || listHas(value, "upgrade")
	case foldEqual(name, "sec-websocket-version"):
		return once(&r.version, value, "two Sec-WebSocket-Version")
	case foldEqual(name, "sec-websocket-key"):
		return once(&r.key, value, "two Sec-WebSocket-Key")
	case foldEqual(name, "origin"):
		return once(&r.origin, value, "two Origin")
	case foldEqual(name, "sec-websocket-protocol"):
		r.protocols(value)
	case foldEqual(name, "authorization"):
		if r.authorized {
			return &refused{400, "two Authorization"}
		}
		r.authorized = true
		scheme, token, _ := bytes.Cut(value, []byte(" "))
		if foldEqual(scheme, "bearer") {
			r.token = bytes.TrimLeft(token, " ")
		}
	case foldEqual(name, "transfer-encoding"), foldEqual(name, "content-length") && string(value) != "0":
		return &refused{400, "an upgrade has no body"}
	}
	return nil
}

// once sets a header that may come only once.
func once(field *[]byte, value []byte, twice string) *refused {
	if *field != nil {
		return &refused{400, twice}
	}
	if *field = value; value == nil {
		*field = []byte{} // an empty header is there too
	}
	return nil
}

// protocols takes one list of offered sub-protocols.
func (r *request) protocols(list []byte) {
	for len(list) > 0 {
		var offer []byte
		offer, list, _ = bytes.Cut(list, []byte(","))
		offer = bytes.Trim(offer, " \t")
		if string(offer) == SubProtocol {
			r.selected = true
		} else if token, ok := bytes.CutPrefix(offer, []byte(bearerPrefix)); ok && r.bearer == nil {
			r.bearer = token
		}
	}
}

// listHas reports whether a comma-separated list has the (lower-case) token.
func listHas(list []byte, token string) bool {
	for len(list) > 0 {
		var item []byte
		item, list, _ = bytes.Cut(list, []byte(","))
		if foldEqual(bytes.Trim(item, " \t"), token) {
			return true
		}
	}
	return false
}

// foldEqual compares ASCII without case; lower is lower-case.
func foldEqual(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// isToken reports whether b has only characters of an HTTP token (RFC 9110 §5.6.2).
func isToken(b []byte) bool {
	for _, c := range b {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) >= 0:
		default:
			return false
		}
	}
	return true
}

// isFieldValue reports whether b has no control character but the tab.
func isFieldValue(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7F {
			return false
		}
	}
	return true
}

// isTarget reports whether b may be a request target: not empty, visible ASCII.
func isTarget(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c >= 0x7F {
			return false
		}
	}
	return len(b) > 0
}

// originAllowed judges the Origin header of a request to host; nil = the header is not there.
func originAllowed(origin, host []byte, rules *UpgradeRules) bool {
	if origin == nil {
		return true
	}
	for _, a := range rules.AllowedOrigins {
		if string(origin) == a {
			return true
		}
	}
	if len(rules.AllowedOrigins) > 0 && !rules.OwnOrigin {
		return false
	}
	scheme, authority, ok := bytes.Cut(origin, []byte("://"))
	port := defaultPort(scheme)
	if !ok || port == "" || len(authority) == 0 {
		return false
	}
	originName, originPort := splitPort(authority, port)
	hostName, hostPort := splitPort(host, port)
	return bytes.EqualFold(originName, hostName) && string(originPort) == string(hostPort)
}

// defaultPort is the port that a browser leaves out for a scheme.
func defaultPort(scheme []byte) string {
	switch {
	case foldEqual(scheme, "http"), foldEqual(scheme, "ws"):
		return "80"
	case foldEqual(scheme, "https"), foldEqual(scheme, "wss"):
		return "443"
	}
	return ""
}

// splitPort divides host:port; without a port it is the given one. An IPv6 address stands in brackets.
func splitPort(authority []byte, port string) (name, number []byte) {
	colon := bytes.LastIndexByte(authority, ':')
	if colon < 0 || bytes.IndexByte(authority[colon:], ']') >= 0 {
		return authority, []byte(port)
	}
	if colon+1 == len(authority) {
		return authority[:colon], []byte(port)
	}
	return authority[:colon], authority[colon+1:]
}
