package config

import (
	"bytes"
	"cmp"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Schema returns the JSON Schema (2020-12) of a config struct. Unions become one alternative for each known value.
func Schema(v any, opt Options) ([]byte, error) {
	s := (&schema{opt}).of(reflect.TypeOf(v).Elem(), "")
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "fieldagent configuration"
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(s)
	return out.Bytes(), err
}

type schema struct{ opt Options }

type object = map[string]any

func (s *schema) of(t reflect.Type, tag reflect.StructTag) object {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	o := object{}
	if doc := tag.Get("doc"); doc != "" {
		o["description"] = doc
	}
	switch {
	case t == durationType:
		o["type"], o["pattern"] = []string{"string", "integer"}, durations
		o["maximum"], o["minimum"] = 0, 0 // as a number only 0 has a meaning
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		o["type"] = "string"
	case t.Kind() == reflect.Struct:
		s.structure(o, t)
	case t.Kind() == reflect.Slice:
		o["type"], o["items"] = "array", s.of(t.Elem(), elementTag(tag))
	case t.Kind() == reflect.Map:
		o["type"], o["additionalProperties"] = "object", s.of(t.Elem(), "")
	case t.Kind() == reflect.Bool:
		o["type"] = "boolean"
	case t.Kind() == reflect.String:
		o["type"] = "string"
		if e := tag.Get("enum"); e != "" {
			words := anys(strings.Split(e, ","))
			for _, v := range words {
				if n, err := strconv.ParseFloat(v.(string), 64); err == nil { // 5 and "5" are the same word
					words = append(words, n)
					delete(o, "type")
				}
			}
			o["enum"] = words
		}
		if p := cmp.Or(tag.Get("pattern"), tag.Get("schema")); p != "" {
			o["pattern"] = p
		}
	case tag.Get("unit") == "bytes":
		o["type"], o["pattern"] = []string{"integer", "string"}, `^[0-9]+(\.[0-9]+)?\s*(B|KiB|MiB|GiB|kB|KB|MB|GB)?$`
	case t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64:
		o["type"] = "number"
		bounds(o, tag)
	case t.Kind() == reflect.Interface:
	default:
		o["type"] = "integer"
		bounds(o, tag)
	}
	if def, ok := tag.Lookup("default"); ok {
		o["default"] = def
		var v any
		if t.Kind() != reflect.String && t != durationType && json.Unmarshal([]byte(def), &v) == nil {
			o["default"] = v
		}
	}
	return o
}

func anys(s []string) []any {
	var out []any
	for _, x := range s {
		out = append(out, x)
	}
	return out
}

func bounds(o object, tag reflect.StructTag) {
	for key, name := range map[string]string{"min": "minimum", "max": "maximum"} {
		if n, err := strconv.ParseFloat(tag.Get(key), 64); err == nil {
			o[name] = n
		} else if n, err := strconv.ParseInt(tag.Get(key), 0, 64); err == nil {
			o[name] = n
		}
	}
}

func (s *schema) structure(o object, t reflect.Type) {
	props, required := object{}, []string{}
	var alternatives []any
	for _, f := range fields(t) {
		if f.union != "" {
			alternatives = s.union(f)
			continue
		}
		prop := s.of(f.typ, f.tag)
		props[f.name] = prop
		if f.required {
			required = append(required, f.name)
			if prop["type"] == "string" && prop["pattern"] == nil {
				prop["pattern"] = `\S` // not blank
			}
		}
	}
	o["type"], o["properties"] = "object", props
	if len(required) > 0 {
		o["required"] = required
	}
	if alternatives == nil {
		o["additionalProperties"] = false
		return
	}
	o["oneOf"], o["unevaluatedProperties"] = alternatives, false
}

func (s *schema) union(f field) []any {
	if s.opt.Union == nil {
		return nil
	}
	_, known := s.opt.Union(f.union, "")
	sort.Strings(known)
	var out []any
	for _, k := range known {
		ptr, _ := s.opt.Union(f.union, k)
		alt := s.of(reflect.TypeOf(ptr), "")
		delete(alt, "additionalProperties")
		alt["properties"].(object)[f.union] = object{"const": k}
		out = append(out, alt)
	}
	return out
}

// YAML writes a config struct as a document with all that is in force, defaults included. It holds no secrets: those are in files of their own.
func YAML(v any) ([]byte, error) {
	rv := reflect.ValueOf(v)
	if rv.Kind() == reflect.Pointer {
		rv = rv.Elem()
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(node(rv, "")); err != nil {
		return nil, err
	}
	return out.Bytes(), enc.Close()
}

func node(rv reflect.Value, tag reflect.StructTag) *yaml.Node {
	for rv.Kind() == reflect.Pointer || rv.Kind() == reflect.Interface {
		if rv.IsNil() {
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
		}
		rv = rv.Elem()
	}
	t := rv.Type()
	plain := func(tag, s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: s} }
	switch {
	case t == durationType:
		return word(formatDuration(time.Duration(rv.Int())))
	case rv.CanInterface() && isText(rv):
		b, _ := rv.Interface().(encoding.TextMarshaler).MarshalText()
		return word(string(b))
	case t.Kind() == reflect.Struct:
		n := &yaml.Node{Kind: yaml.MappingNode}
		appendFields(n, rv)
		return n
	case t.Kind() == reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range rv.Len() {
			n.Content = append(n.Content, node(rv.Index(i), ""))
		}
		return n
	case t.Kind() == reflect.Map:
		n := &yaml.Node{Kind: yaml.MappingNode}
		keys := rv.MapKeys()
		sort.Slice(keys, func(i, j int) bool { return keys[i].String() < keys[j].String() })
		for _, k := range keys {
			n.Content = append(n.Content, word(k.String()), node(rv.MapIndex(k), ""))
		}
		return n
	case t.Kind() == reflect.Bool:
		return plain("!!bool", strconv.FormatBool(rv.Bool()))
	case rv.CanFloat():
		text := strconv.FormatFloat(rv.Float(), 'g', -1, 64)
		if _, err := strconv.Atoi(text); err == nil {
			return plain("!!int", text) // else the tag is written out
		}
		if mantissa, exponent, ok := strings.Cut(text, "e"); ok && !strings.Contains(mantissa, ".") {
			text = mantissa + ".0e" + exponent // without the point it is a text for YAML 1.1
		}
		return plain("!!float", text)
	case tag.Get("unit") == "bytes":
		return word(FormatBytes(rv.Int()))
	case rv.CanInt():
		return plain("!!int", strconv.FormatInt(rv.Int(), 10))
	case rv.CanUint() && strings.HasPrefix(tag.Get("default"), "0x"): // an address
		return plain("!!int", fmt.Sprintf("0x%02x", rv.Uint()))
	case rv.CanUint():
		return plain("!!int", strconv.FormatUint(rv.Uint(), 10))
	}
	return word(rv.String())
}

// noText is what readers of YAML 1.1 or 1.2 may take for a truth value, nothing, a number, a time or a merge.
var noText = regexp.MustCompile(`^(?i:y|yes|n|no|on|off|true|false|null|~|=|<<|)$|^[-+]?\.?[0-9][-+.:0-9_a-fA-FxXoOtTzZ ]*$|^[-+]?\.(?i:inf|nan)$`)

// word is a text, in quotes where a reader could take it for something else.
func word(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if noText.MatchString(s) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

func isText(rv reflect.Value) bool {
	_, ok := rv.Interface().(encoding.TextMarshaler)
	return ok
}

func appendFields(n *yaml.Node, rv reflect.Value) {
	for _, f := range fields(rv.Type()) {
		fv := rv.FieldByIndex(f.index)
		if f.union != "" {
			for fv.Kind() == reflect.Interface || fv.Kind() == reflect.Pointer {
				if fv.IsNil() {
					break
				}
				fv = fv.Elem()
			}
			if fv.Kind() == reflect.Struct {
				appendFields(n, fv)
			}
			continue
		}
		if fv.IsZero() && f.typ.Kind() != reflect.Bool && f.tag.Get("default") == "" && !hasDefaults(f.typ) {
			continue
		}
		n.Content = append(n.Content, word(f.name), node(fv, f.tag))
	}
}

// hasDefaults says whether a section that is all zero is another one than a section that is not there.
func hasDefaults(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	for _, f := range fields(t) {
		if f.tag.Get("default") != "" || hasDefaults(f.typ) {
			return true
		}
	}
	return false
}

// FormatBytes writes a size as ParseBytes reads it.
func FormatBytes(n int64) string {
	for _, u := range []struct {
		n int64
		s string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.n && n%u.n == 0 {
			return strconv.FormatInt(n/u.n, 10) + u.s
		}
	}
	return strconv.FormatInt(n, 10)
}

func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// Option describes one key of a struct, for listings.
type Option struct {
	Name, Type, Default, Doc string
	Required                 bool
}

// Describe lists the keys that a config struct takes; v is a pointer to it.
func Describe(v any) []Option { return describe(reflect.TypeOf(v).Elem()) }

func describe(of reflect.Type) []Option {
	var out []Option
	for _, f := range fields(of) {
		if f.union != "" {
			continue
		}
		o := Option{Name: f.name, Default: f.tag.Get("default"), Doc: f.tag.Get("doc"), Required: f.required}
		t := f.typ
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch {
		case t == durationType:
			o.Type = "duration"
		case f.tag.Get("enum") != "":
			o.Type = strings.ReplaceAll(f.tag.Get("enum"), ",", "|")
		case f.tag.Get("unit") == "bytes":
			o.Type = "size"
		case t.Kind() == reflect.Slice:
			o.Type = "list"
		case t.Kind() == reflect.Map, t.Kind() == reflect.Struct:
			o.Type = "section"
		case t.Kind() == reflect.Bool:
			o.Type = "true|false"
		case t.Kind() == reflect.String:
			o.Type = "text"
		default:
			o.Type = "number"
		}
		out = append(out, o)
		if t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct { // each element's keys, a step to the right
			for _, inner := range describe(t.Elem()) {
				inner.Name = "  " + inner.Name
				out = append(out, inner)
			}
		}
	}
	return out
}
