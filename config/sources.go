package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const envPrefix = "MESHTALK_"

// EnvName is the environment variable of a key.
func EnvName(key string) string {
	return envPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

// kubernetes are the variables that Kubernetes sets in every container for a service of the name meshtalk.
var kubernetes = regexp.MustCompile(`^MESHTALK_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)$`)

// readEnviron takes the MESHTALK_ variables out of environ. An empty one counts as not set.
func readEnviron(environ []string) (values []value, file string, err error) {
	keys := map[string]string{}
	for _, f := range fields() {
		keys[EnvName(f.Name)] = f.Name
	}
	inCluster := slices.ContainsFunc(environ, func(s string) bool { return strings.HasPrefix(s, "KUBERNETES_SERVICE_HOST=") })
	for _, line := range environ {
		name, text, _ := strings.Cut(line, "=")
		key, known := keys[name]
		switch {
		case !strings.HasPrefix(name, envPrefix) || text == "":
		case known:
			values = append(values, value{key: key, text: text, origin: "env " + name})
		case name == fileVariable:
			file = text
		case inCluster && kubernetes.MatchString(name):
		default:
			near := Nearest(strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, envPrefix), "_", ".")))
			return nil, "", fmt.Errorf("%s: unknown environment variable; the nearest one is %s (%s)", name, EnvName(near), near)
		}
	}
	return values, file, nil
}

// seedIgnored are keys of the original server's application.yml that mean nothing here; a name that ends with a dot
// stands for all below it.
var seedIgnored = []string{
	"server.", "spring.", "heartbeat.count", "jwt.", "local.", "distribute.", "redis.arrange.", "message.mq.",
}

// seedKeys are keys of it that mean one of ours. Where both stand, ours wins.
var seedKeys = map[string]string{
	"spring.redis.host": "redis.host", "spring.redis.port": "redis.port", "spring.redis.password": "redis.password",
	"spring.redis.database": "redis.db", "spring.redis.db": "redis.db", "spring.redis.address": "redis.address",
	"spring.redis.sentinel.master": "redis.sentinel.master", "spring.redis.sentinel.nodes": "redis.address",
	"spring.redis.cluster.nodes": "redis.address",
}

// fileReader walks through a YAML file.
type fileReader struct {
	file    string
	seed    []value // said by the original server's keys
	values  []value
	ignored []string
}

// readFile takes the values out of a YAML file, those of the original server's keys first. Keys may be nested, or dotted
// as in "websocket.port: 8080".
func readFile(file string, text []byte) (values []value, ignored []string, err error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	if err = decoder.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil, nil // empty
	}
	if err != nil {
		return nil, nil, fmt.Errorf("config: file %s: %s", file, oneLine(err))
	}
	if err = decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("config: file %s: more than one document (expected one)", file)
	}
	r := &fileReader{file: file}
	if err = r.walk("", doc.Content[0], 0); err != nil {
		return nil, nil, err
	}
	slices.Sort(r.ignored)
	return append(r.seed, r.values...), slices.Compact(r.ignored), nil
}

func oneLine(err error) string {
	return strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " ")
}

// maxDepth is deeper than any key; an alias to what it stands in would go on for ever.
const maxDepth = 16

func (r *fileReader) walk(key string, n *yaml.Node, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("config: file %s line %d: %s is nested too deep", r.file, n.Line, key)
	}
	switch n.Kind {
	case yaml.AliasNode:
		return r.walk(key, n.Alias, depth+1)
	case yaml.MappingNode:
		return r.walkMap(key, n, depth)
	}
	if key == "" {
		if n.Tag == "!!null" {
			return nil
		}
		return fmt.Errorf("config: file %s line %d: expected keys with their values", r.file, n.Line)
	}
	return r.leaf(key, n)
}

func (r *fileReader) walkMap(key string, n *yaml.Node, depth int) error {
	if len(n.Content) == 0 && key != "" {
		if _, isKey := lookup(key); isKey {
			return fmt.Errorf("%s: (%s): expected a value, not a section", key, r.origin(n))
		}
		return r.unknown(key, &yaml.Node{Tag: "!!null", Line: n.Line})
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag == "!!merge" { // first: what stands beside it goes before
			if err := r.walk(key, n.Content[i+1], depth+1); err != nil {
				return err
			}
		}
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, child := n.Content[i], n.Content[i+1]
		if name.Tag == "!!merge" {
			continue
		}
		full := name.Value
		if key != "" {
			full = key + "." + name.Value
		}
		if seen[full] {
			return fmt.Errorf("%s: (%s): stands twice (expected once)", full, r.origin(name))
		}
		seen[full] = true
		if err := r.walk(full, child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (r *fileReader) origin(n *yaml.Node) string {
	return fmt.Sprintf("file %s line %d", r.file, n.Line)
}

// leaf takes a value that is no section.
func (r *fileReader) leaf(key string, n *yaml.Node) error {
	own, seed := seedKeys[key]
	if !seed {
		own = key
	}
	if _, known := lookup(own); !known {
		return r.unknown(key, n)
	}
	if n.Tag == "!!null" {
		return nil // nothing said: what the other sources say, or the default
	}
	v := value{key: own, text: n.Value, origin: r.origin(n)}
	if n.Kind == yaml.SequenceNode {
		v.isList = true
		for _, e := range n.Content {
			if e.Kind == yaml.AliasNode {
				e = e.Alias
			}
			if e.Kind != yaml.ScalarNode {
				return fmt.Errorf("%s: (%s): expected a list of plain values", key, v.origin)
			}
			v.list = append(v.list, e.Value)
		}
	}
	if own == "redis.address" { // the original server wrote redis://host:port
		v.text = strings.ReplaceAll(v.text, "redis://", "")
		for i := range v.list {
			v.list[i] = strings.TrimPrefix(v.list[i], "redis://")
		}
	}
	if seed {
		v.origin += ", " + key
		r.seed = append(r.seed, v)
	} else {
		r.values = append(r.values, v)
	}
	return nil
}

// unknown judges a key that is none of ours.
func (r *fileReader) unknown(key string, n *yaml.Node) error {
	for _, p := range seedIgnored {
		if key == p || strings.HasSuffix(p, ".") && (strings.HasPrefix(key, p) || key+"." == p) {
			r.ignored = append(r.ignored, key)
			return nil
		}
	}
	switch below := firstBelow(key); {
	case below == "":
		return fmt.Errorf("%s (%s): unknown key; the nearest one is %s", key, r.origin(n), Nearest(key))
	case n.Tag != "!!null":
		return fmt.Errorf("%s: (%s): expected keys below it, such as %s", key, r.origin(n), below)
	}
	return nil // a section whose keys are all commented out
}

// firstBelow is a key of the section, "" when it is none.
func firstBelow(section string) string {
	for _, f := range fields() {
		if strings.HasPrefix(f.Name, section+".") {
			return f.Name
		}
	}
	return ""
}
