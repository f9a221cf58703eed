package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// The page is static: index.html, one style sheet and ES modules, without a build step. Everything that it shows comes
// through the HTTP API and the streams below, and goes into the page as text.
//
//go:embed assets
var assetFiles embed.FS

// policy lets the page load its own files and talk to its own server, and nothing else. There is no inline script or
// style, and no script can make markup of text (trusted types).
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; " +
	"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

var assetTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8",
}

// asset is one file as it is served.
type asset struct {
	kind, tag string
	plain     []byte
	zipped    func() []byte
}

// assets are the files by their path below /console/. One of a type that is not in assetTypes is not served.
var assets = sync.OnceValue(func() map[string]*asset {
	list := map[string]*asset{}
	_ = fs.WalkDir(assetFiles, "assets", func(name string, d fs.DirEntry, err error) error { // an embedded tree has no errors
		kind, known := assetTypes[path.Ext(name)]
		if err != nil || d.IsDir() || !known {
			return err
		}
		b, err := assetFiles.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		list[strings.TrimPrefix(name, "assets/")] = &asset{
			kind: kind, tag: `"` + hex.EncodeToString(sum[:8]) + `"`, plain: b,
			zipped: sync.OnceValue(func() []byte { return zip(b) }),
		}
		return nil
	})
	return list
})

func zip(b []byte) []byte {
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.BestCompression) // a level that exists
	_, _ = z.Write(b)                                       // memory does not fail
	_ = z.Close()
	return out.Bytes()
}

// ServeHTTP sends the file, or that the browser has it already.
func (a *asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache") // ask whether it has changed: a new version of the server has a new page
	h.Set("ETag", a.tag)
	h.Set("Vary", "Accept-Encoding")
	if r.Header.Get("If-None-Match") == a.tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	b := a.plain
	if slices.ContainsFunc(strings.Split(r.Header.Get("Accept-Encoding"), ","), isGzip) {
		b = a.zipped()
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(b) // the reader is gone: there is nobody to tell
	}
}

func isGzip(coding string) bool {
	name, weight, _ := strings.Cut(strings.TrimSpace(coding), ";")
	return strings.EqualFold(name, "gzip") && strings.ReplaceAll(weight, " ", "") != "q=0"
}

// file serves what stands below /console/.
func (c *Console) file(w http.ResponseWriter, r *http.Request) {
	if a := assets()[r.PathValue("file")]; a != nil {
		a.ServeHTTP(w, r)
		return
	}
	notFound(w, r)
}

// page serves the page itself. A browser gets it without having signed in, for the form; others are told who may.
func (c *Console) page(w http.ResponseWriter, r *http.Request) {
	index := assets()["index.html"]
	if c.o.Logins.needed && strings.Contains(r.Header.Get("Accept"), "text/html") {
		index.ServeHTTP(w, r)
		return
	}
	c.o.Guard(index).ServeHTTP(w, r)
}
