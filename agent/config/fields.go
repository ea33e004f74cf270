package config

import (
	"reflect"
	"strings"
	"sync"
)

// field is one key that a struct takes.
type field struct {
	name     string
	index    []int
	typ      reflect.Type
	tag      reflect.StructTag
	required bool
	union    string
}

var fieldCache sync.Map // reflect.Type → []field

// fields lists the keys of a struct type, those of inlined structs among them.
func fields(t reflect.Type) []field {
	if f, ok := fieldCache.Load(t); ok {
		return f.([]field)
	}
	var out []field
	for i := range t.NumField() {
		sf := t.Field(i)
		name, opts, _ := strings.Cut(sf.Tag.Get("config"), ",")
		if u := sf.Tag.Get("union"); u != "" {
			out = append(out, field{index: sf.Index, typ: sf.Type, tag: sf.Tag, union: u})
			continue
		}
		if strings.Contains(opts, "inline") {
			for _, f := range fields(sf.Type) {
				f.index = append(append([]int(nil), sf.Index...), f.index...)
				out = append(out, f)
			}
			continue
		}
		if name == "" || name == "-" {
			continue
		}
		out = append(out, field{name: name, index: sf.Index, typ: sf.Type, tag: sf.Tag, required: strings.Contains(opts, "required")})
	}
	fieldCache.Store(t, out)
	return out
}

// suggest returns a hint that names the known word nearest to an unknown one.
func suggest(word string, known []string) string {
	best, bestAt := "", 3
	for _, k := range known {
		if d := distance(word, k); d < bestAt && d < len(word) {
			best, bestAt = k, d
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	if len(known) > 0 && len(known) <= 40 {
		return "known are " + strings.Join(known, ", ")
	}
	return ""
}

// distance is the number of letters to insert, delete, replace or swap with the next to get from a to b.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range len(b) + 1 {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
