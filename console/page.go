package console

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page
	"encoding/base64"
	"html/template"
	"net/http"
	"strconv"
	"time"
)

// The page is one document: its style and script stand in it, and the policy names them by their hashes, so that the
// browser runs nothing else, whatever a name in the figures may contain.
var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
	//go:embed page.js
	pageJS string
)

// page serves the status page. It works without its script, which only refreshes it.
func (o *Options) page() http.Handler {
	t := template.Must(template.New("page").Parse(pageHTML))
	policy := "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'" +
		"; style-src " + source(pageCSS) + "; script-src " + source(pageJS)
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var b bytes.Buffer
		err := t.Execute(&b, map[string]any{
			"Style": template.CSS(pageCSS), "Script": template.JS(pageJS),
			"Version": o.Version, "Node": o.Node,
			"Started": o.Started.UTC().Format(time.RFC3339),
			"Uptime":  time.Since(o.Started).Round(time.Second).String(),
			"State":   o.check(),
		})
		if err != nil {
			o.Logf("status page: %v", err)
			refuse(w, http.StatusInternalServerError, 5000, "INTERNAL", "internal error")
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Length", strconv.Itoa(b.Len()))
		h.Set("Content-Security-Policy", policy)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		_, _ = w.Write(b.Bytes()) // the reader is gone: there is nobody to tell
	})
}

// source is the entry of a policy that allows exactly this text.
func source(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
