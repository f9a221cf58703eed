package docs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/meshtalk/meshtalk/internal/markdown"
)

// block is a block of code of the book.
type block struct {
	where string
	text  string
}

// blocks are those of a language in all documents, but for the files that the reader saves, which are run.
func (d *desk) blocks(t *testing.T, lang string) []block {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z", "*.md")
	cmd.Dir, cmd.Env = d.clone, d.env
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []block
	for doc := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		text, err := os.ReadFile(filepath.Join(d.clone, doc))
		if err != nil {
			t.Fatal(err)
		}
		parts, err := markdown.Parts(string(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			if p.Lang == lang && p.Info == "" {
				list = append(list, block{fmt.Sprintf("%s:%d", doc, p.Line), p.Text})
			}
		}
	}
	if len(list) == 0 {
		t.Fatalf("no block of %s", lang)
	}
	return list
}

// compile writes files into a new folder of the clone and runs a compiler there.
func (d *desk) compile(t *testing.T, folder string, files map[string]string, command ...string) {
	t.Helper()
	dir := filepath.Join(d.clone, folder)
	for name, text := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, d.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", command, err, out)
	}
}

// imports are packages that fragments of Go use, by the name that stands before the point.
var imports = map[string]string{
	"client": "github.com/meshtalk/meshtalk/client", "codec": "github.com/meshtalk/meshtalk/codec",
	"server": "github.com/meshtalk/meshtalk/server", "session": "github.com/meshtalk/meshtalk/session",
	"context": "context", "errors": "errors", "fmt": "fmt", "json": "encoding/json", "time": "time",
}

// compileGo builds every block of Go: a whole file as it is, a fragment as the body of a function that is given ctx and token.
func (d *desk) compileGo(t *testing.T) {
	files := map[string]string{}
	for i, b := range d.blocks(t, "go") {
		text := b.text
		if !strings.HasPrefix(text, "package ") {
			var head strings.Builder
			head.WriteString("package fragment\n\nimport \"context\"\n")
			for name, path := range imports {
				if name != "context" && regexp.MustCompile(`\b`+name+`\.`).MatchString(text) {
					fmt.Fprintf(&head, "import %q\n", path)
				}
			}
			text = fmt.Sprintf("%s\nfunc _(ctx context.Context, token string) error {\n//line %s:1\n%s\nreturn nil\n}\n", &head, b.where, text)
		}
		files[fmt.Sprintf("b%d/block.go", i)] = text
	}
	d.compile(t, "fragments", files, "go", "build", "./...")
}

// declared is what fragments of TypeScript take for granted.
const declared = `import { Client, IndexedDBStore } from "meshtalk-client";
declare const token: string;
declare function fetchToken(): Promise<string>;
declare function show(...words: unknown[]): void;
`

// compileTypeScript checks every block of TypeScript, and that JavaScript is some.
func (d *desk) compileTypeScript(t *testing.T) {
	files := map[string]string{"tsconfig.json": `{
		"extends": "../tsconfig.base.json",
		"compilerOptions": {"types": ["node"], "noUnusedLocals": false, "allowJs": true, "paths": {"meshtalk-client": ["../clients/typescript/src/index.ts"]}},
		"include": ["*", "../hello/*.ts"]
	}`}
	for i, b := range d.blocks(t, "ts") {
		text := b.text
		if !strings.HasPrefix(text, "import ") {
			text = declared + text
		}
		files[fmt.Sprintf("b%d.ts", i)] = fmt.Sprintf("// %s\n%s\nexport {};\n", b.where, text)
	}
	for i, b := range d.blocks(t, "js") {
		files[fmt.Sprintf("j%d.js", i)] = fmt.Sprintf("// %s\n%s\nexport {};\n", b.where, b.text)
	}
	d.compile(t, "typescript", files, "npx", "tsc", "-p", ".")
}

// checkYAML gives every block of YAML to the server's own check. What it says of /etc/meshtalk is looked for in a folder that has it.
func (d *desk) checkYAML(t *testing.T) {
	for _, b := range d.blocks(t, "yaml") {
		dir := t.TempDir()
		file := filepath.Join(dir, "meshtalk.yaml")
		for name, text := range map[string]string{
			file:                              strings.ReplaceAll(b.text, "/etc/meshtalk/", dir+"/"),
			filepath.Join(dir, "admin-token"): "a token for the admin port\n",
		} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(filepath.Join(d.clone, "bin", "meshtalk"), "config", "check", "--config", file)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", b.where, err, out)
		}
	}
}
