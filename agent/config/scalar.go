package config

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

func (d *decoder) scalar(v *value, path, want string) bool {
	if v.kind != scalar {
		hint := map[kind]string{null: "give it a value, or remove it", list: "write one value, without - or [ ]", mapping: "write one value, without keys"}[v.kind]
		d.fault(v, path, hint, "%s where %s is wanted", v.kind, want)
	}
	return v.kind == scalar
}

// between says which values the tags allow, after a blank; "" when all are.
func between(tag reflect.StructTag) string {
	min, max := tag.Get("min"), tag.Get("max")
	switch {
	case min != "" && max != "":
		return " " + min + " to " + max
	case min != "":
		return " " + min + " or more"
	case max != "":
		return " " + max + " or less"
	}
	return ""
}

// like shows how a value may look, for hints.
func like(tag reflect.StructTag) string {
	if l := tag.Get("like"); l != "" {
		return "write it like " + strconv.Quote(l)
	}
	return sentence(tag)
}

// asText says how to write a text that was read as something else. Quotes help only when the text is allowed then.
func asText(v *value, tag reflect.StructTag) string {
	switch enum, p := tag.Get("enum"), tag.Get("pattern"); {
	case enum != "":
		words := strings.Split(enum, ",")
		for i, w := range words {
			words[i] = strconv.Quote(w)
		}
		last := len(words) - 1
		return "write " + strings.TrimPrefix(strings.Join(words[:last], ", ")+" or ", " or ") + words[last]
	case p != "" && !compiled(p).MatchString(v.text):
		return "it must match " + p
	case tag.Get("like") != "":
		return like(tag)
	}
	return fmt.Sprintf("put quotes around it: %q", v.text)
}

func (d *decoder) text(rv reflect.Value, v *value, path string, tag reflect.StructTag) {
	if !d.scalar(v, path, "a text") {
		return
	}
	switch v.tag {
	case "!!str", "!!timestamp":
	case "!!bool":
		// "ON" and "off" are words in YAML 1.2 already; true and false are not.
		d.fault(v, path, asText(v, tag), "%s is true or false, a text is wanted", v.text)
		return
	default: // a number that is meant as text, such as a version
		if tag.Get("enum") == "" {
			d.fault(v, path, asText(v, tag), "%s is a number, a text is wanted", v.text)
			return
		}
	}
	if enum := tag.Get("enum"); enum != "" {
		if known := strings.Split(enum, ","); !slices.Contains(known, v.text) {
			d.fault(v, path, suggest(v.text, known), "%q is not allowed", v.text)
			return
		}
	}
	if p := tag.Get("pattern"); p != "" && !compiled(p).MatchString(v.text) {
		d.fault(v, path, "it must match "+p, "%q is not allowed", v.text)
		return
	}
	rv.SetString(v.text)
}

var patterns sync.Map

func compiled(p string) *regexp.Regexp {
	if r, ok := patterns.Load(p); ok {
		return r.(*regexp.Regexp)
	}
	r := regexp.MustCompile(p)
	patterns.Store(p, r)
	return r
}

func (d *decoder) duration(rv reflect.Value, v *value, path string, tag reflect.StructTag) {
	if !d.scalar(v, path, "a duration such as 30s") {
		return
	}
	n, err := ParseDuration(v.text)
	if err != nil {
		d.fault(v, path, "write it like 500ms, 30s, 2m or 24h", "%q is no duration", v.text)
		return
	}
	if min, err := ParseDuration(tag.Get("min")); err == nil && n < min {
		d.fault(v, path, "write"+between(tag), "%v is less than the least, %v", n, min)
	} else if max, err := ParseDuration(tag.Get("max")); err == nil && n > max {
		d.fault(v, path, "write"+between(tag), "%v is more than the most, %v", n, max)
	}
	rv.SetInt(int64(n))
}

// durations is how a duration is written, here and in the schema.
const durations = `^(0|[0-9]{1,5}d|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`

// ParseDuration reads 500ms, 30s, 2m, 1h30m, 7d and 0.
func ParseDuration(s string) (time.Duration, error) {
	if !compiled(durations).MatchString(s) {
		return 0, errors.New("no duration")
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 32)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(s)
}

// ParseBytes reads 100, 64KiB, 256MiB, 2GiB and the same with kB, MB, GB.
func ParseBytes(s string) (int64, error) {
	units := []struct {
		suffix string
		n      int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}}
	n := int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.suffix); ok {
			s, n = strings.TrimSpace(rest), u.n
			break
		}
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v < 0 || v*float64(n) > math.MaxInt64/2 || v != math.Trunc(v) && n == 1 {
		return 0, errors.New("no size")
	}
	return int64(v * float64(n)), nil
}

func (d *decoder) number(rv reflect.Value, v *value, path string, tag reflect.StructTag) {
	if !d.scalar(v, path, "a number") {
		return
	}
	bytes := tag.Get("unit") == "bytes"
	var f float64
	switch {
	case bytes:
		n, err := ParseBytes(v.text)
		if err != nil {
			d.fault(v, path, "write it like 64KiB or 256MiB", "%q is no size", v.text)
			return
		}
		f = float64(n)
		rv.SetInt(n)
	case rv.CanFloat():
		if v.tag != "!!int" && v.tag != "!!float" {
			d.fault(v, path, "write a number without quotes, such as 1.5", "%q is no number", v.text)
			return
		}
		n, err := strconv.ParseFloat(strings.ReplaceAll(v.text, "_", ""), 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			d.fault(v, path, "write a number such as 1.5", "%q is no number that can be used", v.text)
			return
		}
		f = n
		rv.SetFloat(n)
	default:
		n, err := strconv.ParseInt(strings.ReplaceAll(v.text, "_", ""), 0, 64)
		if v.tag != "!!int" || err != nil {
			d.fault(v, path, "write a whole number without quotes"+strings.Replace(between(tag), " ", ", ", 1), "%q is no whole number", v.text)
			return
		}
		if rv.CanInt() && rv.OverflowInt(n) || rv.CanUint() && (n < 0 || rv.OverflowUint(uint64(n))) {
			d.fault(v, path, "write"+cmp.Or(between(tag), " a number that fits"), "%s is out of range", v.text)
			return
		}
		f = float64(n)
		if rv.CanInt() {
			rv.SetInt(n)
		} else {
			rv.SetUint(uint64(n))
		}
	}
	parse := func(s string) (float64, bool) {
		if s == "" {
			return 0, false
		}
		if bytes {
			n, err := ParseBytes(s)
			return float64(n), err == nil
		}
		if n, err := strconv.ParseInt(s, 0, 64); err == nil {
			return float64(n), true
		}
		n, err := strconv.ParseFloat(s, 64)
		return n, err == nil
	}
	if min, ok := parse(tag.Get("min")); ok && f < min {
		d.fault(v, path, "write"+between(tag), "%s is less than the least, %s", v.text, tag.Get("min"))
	} else if max, ok := parse(tag.Get("max")); ok && f > max {
		d.fault(v, path, "write"+between(tag), "%s is more than the most, %s", v.text, tag.Get("max"))
	}
}
