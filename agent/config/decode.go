package config

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

type decoder struct {
	opt    Options
	faults Faults
	wrong  map[string]bool // paths that have a fault: what follows from it is not told
}

func newDecoder(opt Options) *decoder { return &decoder{opt: opt, wrong: map[string]bool{}} }

var (
	durationType = reflect.TypeFor[time.Duration]()
)

// into decodes a tree and returns all faults so far.
func (d *decoder) into(dst any, tree *value) error {
	rv := reflect.ValueOf(dst)
	if rv.Kind() != reflect.Pointer || rv.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("config: %T is no pointer to a struct", dst)
	}
	if tree == nil {
		tree = &value{kind: mapping}
		if len(d.faults) > 0 {
			return d.sorted()
		}
	}
	rv.Elem().SetZero()
	d.decode(rv.Elem(), tree, "", "")
	return d.sorted()
}

func (d *decoder) sorted() error {
	if len(d.faults) == 0 {
		return nil
	}
	sort.SliceStable(d.faults, func(i, j int) bool {
		a, b := d.faults[i], d.faults[j]
		if a.File != b.File {
			return a.File < b.File
		}
		return a.Line < b.Line || a.Line == b.Line && a.Col < b.Col
	})
	d.faults = slices.Compact(d.faults)
	if n := len(d.faults); n > maxFaults {
		d.faults = append(d.faults[:maxFaults:maxFaults], Fault{File: d.faults[0].File, Message: fmt.Sprintf("and %d more faults", n-maxFaults)})
	}
	return d.faults
}

func (d *decoder) fault(v *value, path, hint, format string, args ...any) {
	d.wrong[path] = true
	d.faults = append(d.faults, Fault{File: v.file, Line: v.line, Col: v.col, Path: path, Message: fmt.Sprintf(format, args...), Hint: hint})
}

func (d *decoder) decode(rv reflect.Value, v *value, path string, tag reflect.StructTag) {
	t := rv.Type()
	if v.told {
		d.wrong[path] = true
		return
	}
	if t.Kind() == reflect.Pointer {
		if v.kind == null {
			return
		}
		p := reflect.New(t.Elem())
		d.decode(p.Elem(), v, path, tag)
		rv.Set(p)
		return
	}
	if v.kind == null && t.Kind() == reflect.Struct {
		v = &value{kind: mapping, file: v.file, line: v.line, col: v.col}
	}
	if u, ok := rv.Addr().Interface().(encoding.TextUnmarshaler); ok && t != durationType {
		if d.scalar(v, path, "a word") {
			if err := u.UnmarshalText([]byte(v.text)); err != nil {
				d.fault(v, path, like(tag), "%v", err)
			}
		}
		return
	}
	switch {
	case t == durationType:
		d.duration(rv, v, path, tag)
	case t.Kind() == reflect.Struct:
		d.structure(rv, v, path)
	case t.Kind() == reflect.Slice:
		if v.kind != list {
			d.fault(v, path, "write - before each, or [a, b]", "%s where a list is wanted", v.kind)
			return
		}
		s := reflect.MakeSlice(t, len(v.items), len(v.items))
		for i, item := range v.items {
			d.decode(s.Index(i), item, fmt.Sprintf("%s[%d]", path, i), elementTag(tag))
		}
		rv.Set(s)
	case t.Kind() == reflect.Map:
		d.mapping(rv, v, path)
	case t.Kind() == reflect.Bool:
		if !d.scalar(v, path, "true or false") {
			return
		}
		if v.tag != "!!bool" {
			d.fault(v, path, "write true or false", "%q is neither true nor false", v.text)
			return
		}
		rv.SetBool(v.text == "true" || v.text == "True" || v.text == "TRUE")
	case t.Kind() == reflect.String:
		d.text(rv, v, path, tag)
	case rv.CanInt(), rv.CanUint(), rv.CanFloat():
		d.number(rv, v, path, tag)
	default:
		d.fault(v, path, "", "cannot be set (%s)", t)
	}
}

// elementTag passes what holds for each element of a list.
func elementTag(tag reflect.StructTag) reflect.StructTag {
	var keep []string
	for _, k := range []string{"enum", "pattern", "min", "max", "unit", "schema", "like"} {
		if s := tag.Get("each_" + k); s != "" {
			keep = append(keep, fmt.Sprintf("%s:%q", k, s))
		}
	}
	return reflect.StructTag(strings.Join(keep, " "))
}

func (d *decoder) mapping(rv reflect.Value, v *value, path string) {
	if v.kind == null {
		return
	}
	if v.kind != mapping {
		d.fault(v, path, "write name: value below it, or {name: value}", "%s where a section with keys is wanted", v.kind)
		return
	}
	t := rv.Type()
	m := reflect.MakeMap(t)
	for _, k := range v.keys {
		e := reflect.New(t.Elem()).Elem()
		d.decode(e, k.v, join(path, k.name), "")
		m.SetMapIndex(reflect.ValueOf(k.name).Convert(t.Key()), e)
	}
	rv.Set(m)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// structure fills a struct: defaults first, then what the document has, then the struct's own checks.
func (d *decoder) structure(rv reflect.Value, v *value, path string) {
	if v.kind != mapping {
		d.fault(v, path, "write its keys below it, such as "+firstKeys(rv.Type()), "%s where a section with keys is wanted", v.kind)
		return
	}
	used := map[string]bool{}
	known := d.fill(rv, v, path, used, nil)
	for _, m := range v.keys {
		if !used[m.name] {
			d.fault(m.at, join(path, m.name), suggest(m.name, known), "unknown key")
		}
	}
	d.check(rv, v, path)
	if d.opt.Check != nil {
		d.opt.Check(rv.Addr().Interface(), d.reporter(v, path))
	}
}

// firstKeys names keys of a section, for hints.
func firstKeys(t reflect.Type) string {
	var names []string
	for _, f := range fields(t) {
		if f.union == "" && len(names) < 3 {
			names = append(names, f.name)
		}
	}
	return strings.Join(names, ", ")
}

func (d *decoder) fill(rv reflect.Value, v *value, path string, used map[string]bool, known []string) []string {
	var later []field
	for _, f := range fields(rv.Type()) {
		if f.union != "" {
			later = append(later, f)
			continue
		}
		known = append(known, f.name)
		m, given := v.get(f.name)
		used[f.name] = true
		switch {
		case given && m.v.kind == null && !m.v.told && f.typ.Kind() != reflect.Struct && f.typ.Kind() != reflect.Pointer:
			d.fault(m.at, join(path, f.name), "give it a value, or remove the key", "has no value")
		case given && f.required && f.typ.Kind() == reflect.String && m.v.kind == scalar && strings.TrimSpace(m.v.text) == "":
			d.fault(m.v, join(path, f.name), sentence(f.tag), "is empty")
		case given:
			d.preset(rv.FieldByIndex(f.index), f.tag)
			d.decode(rv.FieldByIndex(f.index), m.v, join(path, f.name), f.tag)
		case f.required:
			d.fault(v, path, sentence(f.tag), "the key %q is missing", f.name)
			d.wrong[join(path, f.name)] = true
		default:
			d.preset(rv.FieldByIndex(f.index), f.tag)
			if f.typ.Kind() == reflect.Struct {
				d.decode(rv.FieldByIndex(f.index), &value{kind: mapping, file: v.file, line: v.line, col: v.col}, join(path, f.name), f.tag)
			}
		}
	}
	for _, f := range later {
		known = d.union(rv.FieldByIndex(f.index), f, v, path, used, known)
	}
	return known
}

// sentence is what a key is for, as a hint.
func sentence(tag reflect.StructTag) string { return strings.TrimSuffix(tag.Get("doc"), ".") }

// union decodes the keys that belong to the struct chosen by the discriminating key.
func (d *decoder) union(rv reflect.Value, f field, v *value, path string, used map[string]bool, known []string) []string {
	m, ok := v.get(f.union)
	if !ok || m.v.kind != scalar || d.wrong[join(path, f.union)] || d.opt.Union == nil {
		for _, k := range v.keys { // the missing key is a fault already; do not add one for each of its options
			used[k.name] = true
		}
		return known
	}
	ptr, values := d.opt.Union(f.union, m.v.text)
	if ptr == nil {
		d.fault(m.v, join(path, f.union), suggest(m.v.text, values), "unknown %s %q", f.union, m.v.text)
		for _, k := range v.keys {
			used[k.name] = true
		}
		return known
	}
	o := reflect.ValueOf(ptr)
	known = d.fill(o.Elem(), v, path, used, known)
	d.check(o.Elem(), v, path)
	rv.Set(o)
	return known
}

// preset gives a field its default.
func (d *decoder) preset(rv reflect.Value, tag reflect.StructTag) {
	def, ok := tag.Lookup("default")
	if !ok {
		return
	}
	if rv.Kind() == reflect.Slice && rv.Type().Elem().Kind() == reflect.String {
		rv.Set(reflect.ValueOf(strings.Split(def, ",")).Convert(rv.Type()))
		return
	}
	// Defaults go through the same door as values; a default that does not fit its own tags is caught by Schema's test.
	kindTag := "!!str"
	if _, err := strconv.ParseFloat(def, 64); err == nil {
		kindTag = "!!float"
	}
	if _, err := strconv.ParseInt(def, 0, 64); err == nil {
		kindTag = "!!int"
	}
	if def == "true" || def == "false" {
		kindTag = "!!bool"
	}
	if rv.Kind() == reflect.String {
		kindTag = "!!str"
	}
	d.decode(rv, &value{kind: scalar, text: def, tag: kindTag, file: "default"}, "", tag)
}

func (d *decoder) check(rv reflect.Value, v *value, path string) {
	c, ok := rv.Addr().Interface().(Checker)
	if !ok {
		return
	}
	c.Check(d.reporter(v, path))
}

// reporter returns what a check reports with. What follows from a fault that was there before is dropped; of one path the check may report several.
func (d *decoder) reporter(v *value, path string) func(rel, message, hint string) {
	before := maps.Clone(d.wrong)
	return func(rel, message, hint string) {
		parts := strings.Split(rel, ",")
		for _, p := range parts {
			if p != "" && before[join(path, p)] {
				return
			}
		}
		full := path
		if parts[0] != "" {
			full = join(path, parts[0])
		}
		d.fault(v.locate(parts[0]), full, hint, "%s", message)
	}
}

// locate finds where a path such as "servers[1].name" stands, or the nearest place above it.
func (v *value) locate(path string) *value {
	at, key := v, (*value)(nil)
	for _, part := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		if i, err := strconv.Atoi(part); err == nil && at.kind == list {
			if i >= len(at.items) {
				return at
			}
			at, key = at.items[i], nil
			continue
		}
		m, ok := at.get(part)
		if !ok {
			return at
		}
		key, at = m.at, m.v
	}
	if key != nil && at.kind != scalar && at.line > key.line { // the key is what people look for
		return key
	}
	return at
}

// remote checks that a remote document touches only what it may.
func (d *decoder) remote(dst any, v *value, allowed []string) {
	if v.kind != mapping {
		return // said by decode
	}
	t := reflect.TypeOf(dst).Elem()
	for _, m := range v.keys {
		if f, ok := lookup(t, m.name); ok {
			if !slices.Contains(allowed, m.name) {
				d.fault(m.at, m.name, "remote documents may have "+strings.Join(allowed, ", "), "can only be set in the local file")
				continue
			}
			d.remoteLocal(f.typ, m.v, m.name)
		} // unknown keys are said by decode
	}
}

func lookup(t reflect.Type, name string) (field, bool) {
	for _, f := range fields(t) {
		if f.name == name {
			return f, true
		}
	}
	return field{}, false
}

func (d *decoder) remoteLocal(t reflect.Type, v *value, path string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Slice && v.kind == list:
		for i, item := range v.items {
			d.remoteLocal(t.Elem(), item, fmt.Sprintf("%s[%d]", path, i))
		}
	case t.Kind() == reflect.Struct && v.kind == mapping:
		for _, m := range v.keys {
			f, ok := lookup(t, m.name)
			if !ok {
				f, ok = d.unionField(t, v, m.name)
			}
			if !ok {
				continue
			}
			if f.tag.Get("local") == "true" {
				d.fault(m.at, join(path, m.name), "remove it here, and set it in the file on the device", "can only be set in the local file")
				continue
			}
			d.remoteLocal(f.typ, m.v, join(path, m.name))
		}
	}
}

func (d *decoder) unionField(t reflect.Type, v *value, name string) (field, bool) {
	for _, f := range fields(t) {
		if f.union == "" || d.opt.Union == nil {
			continue
		}
		if m, ok := v.get(f.union); ok {
			if ptr, _ := d.opt.Union(f.union, m.v.text); ptr != nil {
				return lookup(reflect.TypeOf(ptr).Elem(), name)
			}
		}
	}
	return field{}, false
}
