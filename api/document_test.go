package api

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// contract is openapi.yaml as the tests use it: every request that is served and every answer is held against it.
type contract struct {
	doc      map[string]any
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema // by pointer
}

func loadContract(t testing.TB) *contract {
	t.Helper()
	c := &contract{compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	if err := yaml.Unmarshal(document, &c.doc); err != nil {
		t.Fatal(err)
	}
	closeObjects(c.doc)
	if err := c.compiler.AddResource("openapi.yaml", c.doc); err != nil {
		t.Fatal(err)
	}
	return c
}

// closeObjects refuses, in the tests, every field that the document does not name. The document itself leaves answers open to additions.
func closeObjects(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, object := v["properties"].(map[string]any); object {
			if _, said := v["additionalProperties"]; !said {
				v["additionalProperties"] = false
			}
		}
		for _, x := range v {
			closeObjects(x)
		}
	case []any:
		for _, x := range v {
			closeObjects(x)
		}
	}
}

// operations are the document's methods and paths.
func (c *contract) operations() (list []string) {
	for path, item := range c.doc["paths"].(map[string]any) {
		for method := range item.(map[string]any) {
			if method != "parameters" {
				list = append(list, strings.ToUpper(method)+" "+path)
			}
		}
	}
	slices.Sort(list)
	return list
}

// pathOf is the document's path for a request's.
func (c *contract) pathOf(escaped string) string {
	given := strings.Split(escaped, "/")
next:
	for path := range c.doc["paths"].(map[string]any) {
		segments := strings.Split(path, "/")
		if len(segments) != len(given) {
			continue
		}
		for i, s := range segments {
			if s != given[i] && !strings.HasPrefix(s, "{") {
				continue next
			}
		}
		return path
	}
	return ""
}

// check holds a JSON text against the schema at a pointer below an operation.
func (c *contract) check(text []byte, path, method string, pointer ...string) error {
	at := "openapi.yaml#"
	for _, p := range append([]string{"paths", path, strings.ToLower(method)}, pointer...) {
		at += "/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(p))
	}
	schema := c.schemas[at]
	if schema == nil {
		var err error
		if schema, err = c.compiler.Compile(at); err != nil {
			return err
		}
		c.schemas[at] = schema
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("%w in %s", err, text)
	}
	return schema.Validate(v)
}

// request and answer check one exchange. A path that the document does not know only has an error to show.
func (c *contract) request(method, path string, body []byte) error {
	if len(body) == 0 {
		body = []byte("{}")
	}
	return c.check(body, c.pathOf(path), method, "requestBody", "content", "application/json", "schema")
}

func (c *contract) answer(method, path string, status int, body []byte) error {
	if status == http.StatusOK {
		return c.check(body, c.pathOf(path), method, "responses", "200", "content", "application/json", "schema")
	}
	at := "openapi.yaml#/components/responses/Error/content/application~1json/schema"
	schema, err := c.compiler.Compile(at)
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w in %s", err, body)
	}
	return schema.Validate(v)
}

func TestDocumentNamesEveryRoute(t *testing.T) {
	var routes []string
	for _, rt := range (&server{}).routes() {
		routes = append(routes, rt.method+" "+rt.path)
	}
	slices.Sort(routes)
	if documented := loadContract(t).operations(); !slices.Equal(documented, routes) {
		t.Errorf("served:\n%s\ndocumented:\n%s", strings.Join(routes, "\n"), strings.Join(documented, "\n"))
	}
}

// A call that takes a body says so in the document and the other way round, its path's parameters stand there, and its
// operationId is its own.
func TestDocumentAgreesWithRoutes(t *testing.T) {
	c := loadContract(t)
	ids := map[string]bool{}
	for _, rt := range (&server{}).routes() {
		item := c.doc["paths"].(map[string]any)[rt.path].(map[string]any)
		op := item[strings.ToLower(rt.method)].(map[string]any)
		if _, body := op["requestBody"]; body != rt.body {
			t.Errorf("%s %s: takes a body: %v, documented: %v", rt.method, rt.path, rt.body, body)
		}
		id, _ := op["operationId"].(string)
		if id == "" || ids[id] {
			t.Errorf("%s %s: operationId %q", rt.method, rt.path, id)
		}
		ids[id] = true
		parameters, _ := item["parameters"].([]any)
		if got, want := len(parameters), strings.Count(rt.path, "{"); got != want {
			t.Errorf("%s: %d path parameters documented, want %d", rt.path, got, want)
		}
	}
}

// The examples of the document are valid requests.
func TestDocumentExamples(t *testing.T) {
	c := loadContract(t)
	found := 0
	for _, rt := range (&server{}).routes() {
		op := c.doc["paths"].(map[string]any)[rt.path].(map[string]any)[strings.ToLower(rt.method)].(map[string]any)
		body, ok := op["requestBody"].(map[string]any)
		if !ok {
			continue
		}
		example, ok := body["content"].(map[string]any)["application/json"].(map[string]any)["example"]
		if !ok {
			continue
		}
		found++
		text, err := encode(example)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.request(rt.method, rt.path, text); err != nil {
			t.Errorf("%s %s: %v", rt.method, rt.path, err)
		}
	}
	if found < 5 {
		t.Errorf("%d examples", found)
	}
}
