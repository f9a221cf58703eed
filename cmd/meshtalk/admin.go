package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// admin is the HTTP API of a server, docs/http-api.md.
type admin struct{ base, token string }

// tokenVariable is also how serve reads its admin.token, so that one export is enough for both.
const tokenVariable = "MESHTALK_ADMIN_TOKEN"

// addAdmin gives cmd, and what stands below it, the flags that say where the API is.
func addAdmin(cmd *cobra.Command, env []string) *admin {
	a := &admin{}
	for _, pair := range env {
		if v, ok := strings.CutPrefix(pair, tokenVariable+"="); ok {
			a.token = v
		}
	}
	fromEnv := a.token
	cmd.PersistentFlags().StringVar(&a.base, "admin", "http://127.0.0.1:8090", "address of the server's admin port")
	cmd.PersistentFlags().StringVar(&a.token, "admin-token", "", "bearer token of the admin port (environment: "+tokenVariable+")")
	a.token = fromEnv // the flag's default would show the secret in the help
	return a
}

// maxAnswer bounds an answer in bytes; the server's are below 1 MiB.
const maxAnswer = 16 << 20

// call makes one call and returns the answer's JSON. body is sent as JSON unless it is nil. A refusal is one line with
// the code's name.
func (a *admin) call(ctx context.Context, method, path string, body any) (json.RawMessage, error) {
	base, err := url.Parse(a.base)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, usage("--admin: %q (expected an address such as http://127.0.0.1:8090)", a.base)
	}
	var payload io.Reader
	if body != nil {
		b, err := encodeJSON(body)
		if err != nil {
			return nil, failure(err)
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(a.base, "/")+path, payload)
	if err != nil {
		return nil, failure(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	// A redirect is no answer of this API, and would be given the token.
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return nil, failure(unreachable(err))
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, failure(fmt.Errorf("read the answer: %w", err))
	}
	if resp.StatusCode != http.StatusOK {
		return nil, failure(refusal(resp.Status, answer))
	}
	if !json.Valid(answer) {
		return nil, failure(fmt.Errorf("%s does not answer as a Mesh-Talk server (is it the admin port?)", a.base))
	}
	return answer, nil
}

// encodeJSON is json.Marshal without the escapes that are for HTML.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// unreachable says what to do when there is no answer.
func unreachable(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w (is the server running, and is --admin its admin address?)", err)
	}
	return err
}

// refusal is the error of an answer that is not 200.
func refusal(status string, answer []byte) error {
	var e struct {
		Error struct {
			Code          int
			Name, Message string
		}
	}
	if json.Unmarshal(answer, &e) != nil || e.Error.Name == "" {
		return fmt.Errorf("the server answers %s", status)
	}
	if e.Error.Name == "UNAUTHORIZED" {
		e.Error.Message += " (set --admin-token or " + tokenVariable + ")"
	}
	return fmt.Errorf("%s (%d): %s", e.Error.Name, e.Error.Code, e.Error.Message)
}

// tell makes a call and prints its answer as one line.
func (a *admin) tell(cmd *cobra.Command, method, path string, body any) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	answer, err := a.call(ctx, method, path, body)
	if err != nil {
		return err
	}
	return printJSON(cmd, answer)
}

func printJSON(cmd *cobra.Command, answer json.RawMessage) error {
	var line bytes.Buffer
	if err := json.Compact(&line, answer); err != nil {
		return failure(err)
	}
	line.WriteByte('\n')
	_, err := cmd.OutOrStdout().Write(line.Bytes())
	return failure(err)
}

// segment is a name as a part of a path. Dots alone would be taken for a way through folders.
func segment(name string) string {
	if strings.Trim(name, ".") == "" {
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}

func newStats(e environment) *cobra.Command {
	cmd := &cobra.Command{Use: "stats", Short: "Print what the server counts, as JSON", Args: cobra.NoArgs}
	a := addAdmin(cmd, e.env)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.tell(cmd, "GET", "/v1/stats", nil) }
	return cmd
}

func newBackup(e environment) *cobra.Command {
	cmd := &cobra.Command{
		Use: "backup DIR", Short: "Copy the store of a running server to a new directory",
		Long: "Copy the embedded store of a running server, as it is at one moment, to a new directory below the parent of its data\n" +
			"directory. serve --data-dir DIR starts from it.",
		Args: cobra.ExactArgs(1),
	}
	a := addAdmin(cmd, e.env)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if args[0] == "" {
			return usage("DIR is empty (expected a new directory)")
		}
		dir, err := filepath.Abs(args[0]) // the server's working directory may be another
		if err != nil {
			return failure(err)
		}
		return a.tell(cmd, "POST", "/v1/backup", map[string]string{"dir": dir})
	}
	return cmd
}
