package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

type kind uint8

const (
	null kind = iota
	scalar
	list
	mapping
)

func (k kind) String() string {
	return [...]string{"nothing", "a value", "a list", "a section with keys"}[k]
}

// value is a piece of a document that knows where it stands.
type value struct {
	kind      kind
	text      string
	tag       string // yaml's: !!str, !!int, !!float, !!bool
	items     []*value
	keys      []member
	file      string
	line, col int
}

type member struct {
	name string
	at   *value // of the key itself
	v    *value
}

func (v *value) get(name string) (member, bool) {
	for _, m := range v.keys {
		if m.name == name {
			return m, true
		}
	}
	return member{}, false
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// parse turns a document into values, or nil when it has faults that allow none.
func (d *decoder) parse(s Source, limit int) *value {
	fault := func(line, col int, message, hint string) {
		d.faults = append(d.faults, Fault{File: s.Name, Line: line, Col: col, Message: message, Hint: hint})
	}
	if len(s.Data) > limit {
		d.faults = append(d.faults, tooLarge(s.Name, int64(len(s.Data)), int64(limit))...)
		return nil
	}
	data := bytes.TrimPrefix(s.Data, []byte("\xef\xbb\xbf"))
	if i := firstInvalid(data); i >= 0 {
		fault(1+bytes.Count(data[:i], []byte("\n")), i-bytes.LastIndexByte(data[:i], '\n'), fmt.Sprintf("byte %#x is not text in UTF-8", data[i]), "save the file as UTF-8")
		return nil
	}
	if bytes.Count(data, []byte(","))+bytes.Count(data, []byte("\n")) > 2*maxNodes { // the parser takes a kilobyte for each value
		fault(0, 0, fmt.Sprintf("more than %d values", maxNodes), "is this the right file?")
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err := decode(dec, &doc)
	if err == nil && len(doc.Content) == 1 && !(doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].Tag == "!!null") {
		if err := decode(dec, &second); !errors.Is(err, io.EOF) {
			line := second.Line
			if err != nil {
				line = 0
			}
			fault(max(line, 1), 1, "a second document begins here (---)", "one file, one document; put more files into conf.d")
			return nil
		}
		b := &builder{d: d, file: s.Name}
		return b.build(doc.Content[0], 0)
	}
	if errors.Is(err, io.EOF) || err == nil {
		fault(0, 0, "the file is empty", "it needs at least mqtt: {servers: [...]}")
		return nil
	}
	line, message := 1, err.Error()
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		message = m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
		}
	}
	hint := "check the indentation and the quotes near this line"
	if strings.Contains(message, "tab") || bytes.Contains(lineOf(data, line), []byte("\t")) {
		hint = "YAML is indented with spaces, not with tabs"
	}
	fault(line, 1, message, hint)
	return nil
}

func lineOf(data []byte, n int) []byte {
	lines := bytes.SplitN(data, []byte("\n"), n+1)
	if n-1 < len(lines) && n > 0 {
		return lines[n-1]
	}
	return nil
}

func firstInvalid(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 || r == 0 {
			return i
		}
		i += n
	}
	return -1
}

// decode guards against panics of the parser on hostile input.
func decode(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("yaml: cannot be parsed: %v", p)
		}
	}()
	return dec.Decode(n)
}

type builder struct {
	d     *decoder
	file  string
	nodes int
}

func (b *builder) fault(n *yaml.Node, message, hint string) {
	b.d.faults = append(b.d.faults, Fault{File: b.file, Line: n.Line, Col: n.Column, Message: message, Hint: hint})
}

func (b *builder) build(n *yaml.Node, depth int) *value {
	v := &value{file: b.file, line: n.Line, col: n.Column, text: n.Value, tag: n.ShortTag()}
	if b.nodes++; b.nodes == maxNodes {
		b.fault(n, fmt.Sprintf("more than %d values", maxNodes), "is this the right file?")
	}
	if b.nodes >= maxNodes {
		return v
	}
	if depth > maxDepth {
		b.fault(n, fmt.Sprintf("nested more than %d deep", maxDepth), "")
		return v
	}
	if n.Anchor != "" || n.Kind == yaml.AliasNode {
		b.fault(n, "anchors and aliases (& and *) are not allowed", "write the value out")
		return v
	}
	switch n.Kind {
	case yaml.ScalarNode:
		v.kind = scalar
		if v.tag == "!!null" {
			v.kind = null
		}
	case yaml.SequenceNode:
		v.kind = list
		for _, c := range n.Content {
			v.items = append(v.items, b.build(c, depth+1))
		}
	case yaml.MappingNode:
		v.kind = mapping
		seen := map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" {
				b.fault(k, "a key must be a plain word", "")
				continue
			}
			if first, twice := seen[k.Value]; twice {
				b.fault(k, fmt.Sprintf("key %q is given twice", k.Value), fmt.Sprintf("it stands in line %d already", first))
				continue
			}
			seen[k.Value] = k.Line
			v.keys = append(v.keys, member{k.Value, &value{file: b.file, line: k.Line, col: k.Column}, b.build(n.Content[i+1], depth+1)})
		}
	}
	return v
}

// merge lays over over base. A section without keys names nothing, so it takes nothing away.
func merge(base, over *value) *value {
	if base != nil && base.kind == mapping && over.kind == null {
		return base
	}
	if base == nil || base.kind != mapping || over.kind != mapping {
		return over
	}
	out := *base
	out.keys = append([]member(nil), base.keys...)
	for _, m := range over.keys {
		found := false
		for i := range out.keys {
			if out.keys[i].name == m.name {
				out.keys[i] = member{m.name, m.at, merge(out.keys[i].v, m.v)}
				found = true
			}
		}
		if !found {
			out.keys = append(out.keys, m)
		}
	}
	return &out
}
