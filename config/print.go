package config

import (
	"bytes"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/meshtalk/meshtalk/server"
)

// YAML is the whole configuration with secrets masked, each value with a comment that says where it came from. Without
// secrets it loads again to the same.
func (c *Config) YAML() ([]byte, error) { return c.yaml(true) }

// Settings are all keys with their values, secrets masked, and where each came from, in the order of docs/configuration.md.
func (c *Config) Settings() []server.Setting {
	var list []server.Setting
	for _, k := range fields() {
		list = append(list, server.Setting{
			Key: k.Name, Value: k.masked(k.text(c)), Origin: c.Origin(k.Name), Help: k.Help, Secret: k.Secret,
		})
	}
	return list
}

func (c *Config) yaml(masked bool) ([]byte, error) {
	root := &yaml.Node{Kind: yaml.MappingNode, HeadComment: c.Warning()}
	for _, k := range fields() {
		n := k.node(c, masked)
		n.LineComment = c.Origin(k.Name)
		section := root
		names := strings.Split(k.Name, ".")
		for _, name := range names[:len(names)-1] {
			section = below(section, name)
		}
		section.Content = append(section.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: names[len(names)-1]}, n)
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(root); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

// below is the section name of n, made if there is none.
func below(n *yaml.Node, name string) *yaml.Node {
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	section := &yaml.Node{Kind: yaml.MappingNode}
	n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name}, section)
	return section
}

// node is the value in c as YAML.
func (f field) node(c *Config, masked bool) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: f.text(c)} // quoted where it would read as something else
	if masked {
		n.Value = f.masked(n.Value)
	}
	if strings.Contains(n.Value, "\n") {
		n.Style = yaml.DoubleQuotedStyle // a block leaves no room for the comment
	}
	switch f.kind() {
	case Bool:
		n.Tag = "!!bool"
	case Int:
		n.Tag = "!!int"
	case List:
		n = &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, v := range *f.at(c).(*[]string) {
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v})
		}
	}
	return n
}
