package api

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestGuardWithoutToken(t *testing.T) {
	h := New(&fake{}, Options{})
	for _, x := range []struct {
		host, origin string
		status       int
	}{
		{"localhost", "", 200}, {"localhost:8090", "", 200}, {"LocalHost:1", "", 200},
		{"127.0.0.1", "", 200}, {"127.0.0.1:8090", "", 200}, {"127.8.9.10:80", "", 200},
		{"[::1]", "", 200}, {"[::1]:8090", "", 200},
		{"", "", 403}, {"example.org", "", 403}, {"example.org:8090", "", 403}, {"localhost.example.org", "", 403}, {"127.0.0.1.example.org", "", 403},
		{"192.168.1.1:8090", "", 403}, {"0.0.0.0:8090", "", 403}, {"[::]:8090", "", 403}, {"128.0.0.1", "", 403}, {"localhost:80:90", "", 403},
		{"127.1", "", 403}, {"2130706433", "", 403}, {"[::1", "", 403}, {"localhost@example.org", "", 403},

		{"127.0.0.1:8090", "http://127.0.0.1:8090", 200},
		{"localhost:8090", "http://LOCALHOST:8090", 200},
		{"localhost:8090", "https://localhost:8090", 200},
		{"[::1]:8090", "http://[::1]:8090", 200},
		{"127.0.0.1:8090", "http://127.0.0.1:8080", 403}, // another program on this host
		{"127.0.0.1:8090", "http://localhost:8090", 403},
		{"127.0.0.1:8090", "http://example.org", 403},
		{"127.0.0.1:8090", "null", 403},
		{"127.0.0.1:8090", "127.0.0.1:8090", 403},
		{"127.0.0.1:8090", "file://127.0.0.1:8090", 403},
		{"example.org", "http://example.org", 403},
	} {
		r := httptest.NewRequest(http.MethodGet, "http://x/v1/stats", nil)
		r.Host = x.host
		if x.origin != "" {
			r.Header.Set("Origin", x.origin)
		}
		a := ask(t, h, r)
		if a.status != x.status {
			t.Errorf("Host %q, Origin %q: %d %s, want %d", x.host, x.origin, a.status, a.body, x.status)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "http://localhost/v1/stats", nil)
	r.Header["Origin"] = []string{"http://localhost", "http://example.org"}
	if a := ask(t, h, r); a.status != 403 {
		t.Errorf("two Origins: %d", a.status)
	}
	r.Header["Origin"] = []string{""}
	if a := ask(t, h, r); a.status != 403 {
		t.Errorf("an empty Origin: %d", a.status)
	}
}

func TestGuardWithToken(t *testing.T) {
	f := &fake{}
	h := New(f, Options{Token: "s3cret"})
	for _, x := range []struct {
		header string
		status int
	}{
		{"Bearer s3cret", 200}, {"bearer s3cret", 200}, {"BEARER  s3cret", 200},
		{"", 401}, {"s3cret", 401}, {"Bearer", 401}, {"Bearer ", 401}, {"Bearer s3cre", 401}, {"Bearer s3cret2", 401}, {"Bearer S3CRET", 401},
		{"Basic s3cret", 401}, {"Bearer s3cret x", 401},
	} {
		for _, path := range []string{"/v1/groups/a", "/openapi.yaml", "/v1/nothing", "/v1/messages"} {
			r := httptest.NewRequest(http.MethodGet, "http://mesh.example.org"+path, nil)
			r.Header.Set("Origin", "https://shop.example.org") // a token is proof enough
			if x.header != "" {
				r.Header.Set("Authorization", x.header)
			}
			a := ask(t, h, r)
			refused := a.status == http.StatusUnauthorized
			if refused != (x.status == 401) || refused != (a.header.Get("WWW-Authenticate") == `Bearer realm="meshtalk"`) {
				t.Errorf("%q %s: %d %q", x.header, path, a.status, a.header.Get("WWW-Authenticate"))
			}
			if calls := f.took(); refused && calls != "" {
				t.Errorf("%q: the hub was asked to %s", x.header, calls)
			}
			if refused && !sameJSON(t, a.body, `{"error":{"code":4001,"name":"UNAUTHORIZED","message":"the admin token is missing or wrong"}}`) {
				t.Errorf("%s", a.body)
			}
		}
	}
	r := httptest.NewRequest(http.MethodGet, "http://localhost/v1/stats?token=s3cret&access_token=s3cret", nil)
	if a := ask(t, h, r); a.status != http.StatusUnauthorized {
		t.Errorf("a token in the query: %d", a.status)
	}
}
