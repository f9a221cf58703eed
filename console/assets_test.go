package console

import (
	"compress/gzip"
	"io"
	"path"
	"regexp"
	"strings"
	"testing"
)

// The page loads its own files and nothing else, and the policy says so.
func TestPage(t *testing.T) {
	h := consoleOf(t, Options{})
	a := ask(t, h, "GET", "/")
	if a.status != 200 || a.header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("got %d %q", a.status, a.header.Get("Content-Type"))
	}
	policy := a.header.Get("Content-Security-Policy")
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || strings.Contains(policy, "http") ||
		!strings.HasPrefix(policy, "default-src 'none'; ") || !strings.Contains(policy, "frame-ancestors 'none'") {
		t.Errorf("policy %q", policy)
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="([^#"][^"]*)"`).FindAllStringSubmatch(a.body, -1) {
		if m[1] == "/metrics" {
			continue
		}
		if got := ask(t, h, "GET", m[1]); got.status != 200 {
			t.Errorf("the page loads %s: %d", m[1], got.status)
		}
	}
	if m := regexp.MustCompile(`(?i)\sstyle=|\son[a-z]+=|<style|javascript:`).FindString(a.body); m != "" {
		t.Errorf("the policy forbids %q of the page", m)
	}
}

// Modules import what is there, none makes markup of text, and no file names another host.
func TestModules(t *testing.T) {
	imports := regexp.MustCompile(`(?m)^import (?:[^"]* from )?"([^"]+)"`)
	markup := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\("style"`)
	for name, a := range assets() {
		text := string(a.plain)
		if strings.HasPrefix(name, "vendor/") {
			continue
		}
		for _, m := range imports.FindAllStringSubmatch(text, -1) {
			if assets()[path.Join(path.Dir(name), m[1])] == nil {
				t.Errorf("%s imports %s, which is not there", name, m[1])
			}
		}
		if m := markup.FindString(text); m != "" {
			t.Errorf("%s uses %s: what it shows must go in as text", name, m)
		}
		for _, m := range regexp.MustCompile(`(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}`).FindAllString(text, -1) {
			if m != "http://www.w3.org" { // the name of SVG
				t.Errorf("%s names %s", name, m)
			}
		}
	}
}

func TestAssets(t *testing.T) {
	h := consoleOf(t, Options{})
	a := ask(t, h, "GET", "/console/app.js")
	if a.status != 200 || a.header.Get("Content-Type") != "text/javascript; charset=utf-8" || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Fatalf("got %d %v", a.status, a.header)
	}
	if again := do(h, request("GET", "/console/app.js", "", "If-None-Match: "+a.header.Get("ETag"))); again.StatusCode != 304 {
		t.Errorf("the same once more: %d", again.StatusCode)
	}
	zipped := do(h, request("GET", "/console/app.js", "", "Accept-Encoding: br, gzip;q=0.5"))
	z, err := gzip.NewReader(zipped.Body)
	if err != nil || zipped.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("%v %v", err, zipped.Header)
	}
	if b, err := io.ReadAll(z); err != nil || string(b) != a.body {
		t.Errorf("the compressed file is another one (%v)", err)
	}
	if plain := do(h, request("GET", "/console/app.js", "", "Accept-Encoding: gzip;q=0")); plain.Header.Get("Content-Encoding") != "" {
		t.Error("compressed for who does not want it")
	}
	if head := ask(t, h, "HEAD", "/console/app.js"); head.status != 200 || head.body != "" {
		t.Errorf("HEAD: %d with %d bytes", head.status, len(head.body))
	}
	for _, p := range []string{"/console/", "/console/pages", "/console/app", "/console/pages/nothing.js"} {
		if a := ask(t, h, "GET", p); a.status != 404 {
			t.Errorf("%s: %d", p, a.status)
		}
	}
	if n := assets()["vendor/uplot-license.txt"]; n == nil || !strings.Contains(string(n.plain), "MIT") {
		t.Error("the licence of the chart library is not served")
	}
}
