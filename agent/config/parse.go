package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
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
	told      bool // it has a fault, and so no more is said of it
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

// What is said of a document that has nothing in it.
const (
	emptyMain   = `write at least mqtt: {servers: ["mqtts://broker.example.net:8883"]}, or mqtt: {} to do without a broker`
	emptyRemote = "to return to the local file, publish a retained message without a payload"
)

// parse turns a document into values, or nil when it has faults that allow none. With a hint what to write, an empty one is a fault.
func (d *decoder) parse(s Source, limit int, empty string) *value {
	fault := func(line, col int, message, hint string) {
		d.faults = append(d.faults, Fault{File: s.Name, Line: line, Col: col, Message: message, Hint: hint})
	}
	if len(s.Data) > limit {
		d.faults = append(d.faults, tooLarge(s.Name, int64(len(s.Data)), int64(limit))...)
		return nil
	}
	data := bytes.TrimPrefix(s.Data, []byte("\xef\xbb\xbf"))
	if i := firstInvalid(data); i >= 0 {
		line, col := position(data, i)
		fault(line, col, fmt.Sprintf("byte %#x is not text in UTF-8", data[i]), "save the file as UTF-8")
		return nil
	}
	if i := bytes.IndexFunc(data, control); i >= 0 {
		r, _ := utf8.DecodeRune(data[i:])
		line, col := position(data, i)
		fault(line, col, fmt.Sprintf("the control character U+%04X is not allowed", r), "remove it")
		return nil
	}
	if bytes.Count(data, []byte(","))+bytes.Count(data, []byte("\n")) > 2*maxNodes { // the parser takes a kilobyte for each value
		fault(0, 0, fmt.Sprintf("more than %d values", maxNodes), "is this the right file?")
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err := decode(dec, &doc)
	if err != nil && !errors.Is(err, io.EOF) {
		d.faults = append(d.faults, syntaxFault(s.Name, data, err))
		return nil
	}
	if err == nil {
		more, line := decode(dec, &second), secondLine(data)
		switch {
		case errors.Is(more, io.EOF):
		case more != nil && line == 0: // the document has ended too early, as with a bracket too much
			d.faults = append(d.faults, syntaxFault(s.Name, data, more))
			return nil
		default:
			fault(max(line, second.Line), 1, "a second document begins here (---)", "one file, one document; put more files into conf.d")
			return nil
		}
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].Tag == "!!null" {
		if empty != "" {
			fault(0, 0, "the file is empty", empty)
		}
		return nil
	}
	b := &builder{d: d, file: s.Name}
	return b.build(doc.Content[0], 0)
}

// position is the line and the column, in characters, of a byte.
func position(data []byte, i int) (line, col int) {
	return 1 + bytes.Count(data[:i], []byte("\n")), 1 + utf8.RuneCount(data[bytes.LastIndexByte(data[:i], '\n')+1:i])
}

// control says whether YAML does not allow a character.
func control(r rune) bool {
	return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r >= 0x7f && r < 0xa0 && r != 0x85 || r == 0xfeff || r == 0xfffe || r == 0xffff
}

// secondLine is that of the --- before the second document.
func secondLine(data []byte) int {
	begun := false
	for i, line := range strings.Split(string(data), "\n") {
		marker := strings.HasPrefix(line, "---") && strings.TrimLeft(line[3:], " \t\r") == "" || strings.HasPrefix(line, "--- ")
		if marker && begun {
			return i + 1
		}
		line = strings.TrimSpace(line)
		begun = begun || line != "" && line[0] != '#' && line[0] != '%'
	}
	return 0
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
		v.told = true
		return v
	}
	if depth > maxDepth {
		b.fault(n, fmt.Sprintf("nested more than %d deep", maxDepth), "no key is that deep: count the brackets, or the spaces before the lines")
		v.told = true
		return v
	}
	if b.foreign(n) {
		v.told = true
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
			if b.foreign(k) {
				continue
			}
			if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" {
				b.fault(k, "a key must be a plain word", "write name: value; lists, sections and << are no keys")
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

// foreign refuses what YAML has and a configuration does not need: anchors, aliases, and tags that say what the value is not.
func (b *builder) foreign(n *yaml.Node) bool {
	if n.Anchor != "" || n.Kind == yaml.AliasNode {
		b.fault(n, "anchors and aliases (& and *) are not allowed", "write the value out")
		return true
	}
	if n.Style&yaml.TaggedStyle == 0 {
		return false
	}
	plain := *n
	plain.Tag, plain.Style = "", n.Style&^yaml.TaggedStyle
	tag, is := n.ShortTag(), plain.ShortTag()
	if tag == is || n.Kind == yaml.ScalarNode && (tag == "!!str" || tag == "!!float" && is == "!!int") {
		return false
	}
	b.fault(n, fmt.Sprintf("the tag %s is not allowed here", tag), "write the value without it; a text may stand in quotes")
	return true
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
