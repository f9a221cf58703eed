package markdown

import (
	"slices"
	"testing"
)

const document = "# Title\n\ntext [a](b.md#c) `[no](link.md)`\n```sh server\n# no heading [no](x)\n```\n" +
	"## Über `code`: 1 & 2\n<img src=\"i.png\" width=\"49%\">\n````md\n```sh\n```\n````\n## Again\n## Again\n"

func TestParts(t *testing.T) {
	parts, err := Parts(document)
	if err != nil {
		t.Fatal(err)
	}
	want := []Part{
		{Line: 1, Text: "# Title\n\ntext [a](b.md#c) `[no](link.md)`\n"},
		{Line: 4, Code: true, Lang: "sh", Info: "server", Text: "# no heading [no](x)\n"},
		{Line: 7, Text: "## Über `code`: 1 & 2\n<img src=\"i.png\" width=\"49%\">\n"},
		{Line: 9, Code: true, Lang: "md", Text: "```sh\n```\n"},
		{Line: 13, Text: "## Again\n## Again\n"},
	}
	if !slices.Equal(parts, want) {
		t.Errorf("got  %+v\nwant %+v", parts, want)
	}
	if _, err := Parts("a\n```sh\nb\n"); err == nil {
		t.Error("a block without an end is taken")
	}
}

func TestLinksAndAnchors(t *testing.T) {
	if got, want := Links(document), []string{"b.md#c", "i.png"}; !slices.Equal(got, want) {
		t.Errorf("links %q, want %q", got, want)
	}
	if got, want := Anchors(document), []string{"title", "über-code-1--2", "again", "again-1"}; !slices.Equal(got, want) {
		t.Errorf("anchors %q, want %q", got, want)
	}
}
