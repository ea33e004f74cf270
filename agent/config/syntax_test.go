package config

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A syntax error has the line of the mistake, not that of the block around it.
func TestSyntaxErrorsHaveTheirPlace(t *testing.T) {
	five := "labels:\n  a: x\n  b: y\n  c: z\nscale: 1\n" // five good lines
	for name, c := range map[string]struct{ doc, want string }{
		"bad indentation":             {five + " on: true\nmax_size: 2MiB\n", "a.yaml:6:2: "},
		"bad indentation in a block":  {"labels:\n  a: x\n  b: y\n  c: z\n  d: z\n e: x\non: true\n", "a.yaml:6:2: did not find expected key (indent it like the lines"},
		"indented too far":            {"labels:\n  a: x\n  b: y\n  c: z\n  d: z\n     e: x\non: true\n", "a.yaml:6:6: mapping values are not allowed in this context (indent it like the line before"},
		"open brace":                  {"on: true\nscale: 1\nsensors:\n  - {name: a, driver: bme280}\n  - {name: b, driver: bme280}\n  - {name: c, driver: bme280\n  - {name: d, driver: bme280}\n", "a.yaml:6:5: the { that begins here is not closed (write a } where it ends)"},
		"open brace at the end":       {five + "labels: {d: e\n", "a.yaml:6:9: the { that begins here is not closed"},
		"open bracket before a key":   {five + "sensors: [{name: a}\nmax_size: 2MiB\n", "a.yaml:6:10: the [ that begins here is not closed (write a ] where it ends)"},
		"wrong bracket":               {five + "sensors: [{name: a]\nmax_size: 2MiB\n", "a.yaml:6:11: the { that begins here"},
		"in a long list":              {"sensors: [\n  {name: a},\n  {name: b},\n  {name: c}\n  {name: d},\n]\n", "a.yaml:5:3: did not find expected ',' or ']'"},
		"JSON with a comma too few":   {"{\n  \"on\": true,\n  \"labels\": {\n    \"a\": \"b\"\n  }\n  \"scale\": 1\n}\n", "a.yaml:6:3: did not find expected ',' or '}'"},
		"open quote":                  {five + "labels: {a: \"b}\nmax_size: 2MiB\nmqtt: {ca_file: \"x\"}\n", "a.yaml:6:13: the \" that begins here is not closed (close the quotes in the same line)"},
		"open quote to the end":       {five + "on: 'true\nmax_size: 2MiB\n", "a.yaml:6:5: the ' that begins here is not closed"},
		"unknown anchor":              {five + "on: *foo\nmax_size: 2MiB\n", "a.yaml:6:5: anchors and aliases (& and *) are not allowed (write the value out; put quotes"},
		"unknown anchor in a list":    {five + "sensors: [a, *foo, b]\n", "a.yaml:6:14: anchors and aliases"},
		"control character":           {five + "on: tr\aue\n", "a.yaml:6:7: the control character U+0007 is not allowed (remove it)"},
		"a second byte order mark":    {"\xef\xbb\xbfon: true\nlabels: {\xef\xbb\xbfa: b}\n", "a.yaml:2:10: the control character U+FEFF"},
		"missing colon":               {five + "mqtt:\n  ca_file x\n  keepalive: 5s\n", "a.yaml:7:3: a colon is missing (write key: value)"},
		"missing colon in a list":     {five + "sensors:\n  - name a\n    driver: bme280\n", "a.yaml:7:3: a colon is missing"},
		"missing colon at the end":    {five + "mqtt:\n  keepalive: 5s\n  ca_file x\n", "a.yaml:8:3: could not find expected ':' (write key: value)"},
		"two colons":                  {five + "labels:\n  d: a: b\n", "a.yaml:7:3: mapping values are not allowed in this context (give each key its own line; a text with"},
		"tab":                         {five + "labels:\n\td: e\n", "a.yaml:7:1: found character that cannot start any token (YAML is indented with spaces, not with tabs)"},
		"at sign":                     {five + "labels: {d: @x}\n", "a.yaml:6:1: found character that cannot start any token (put quotes around the text)"},
		"backslash":                   {five + "labels: {d: \"\\x\"}\n", "a.yaml:6:1: "},
		"an apostrophe is no quote":   {"labels:\n  a: don't [x\n  b: it's\n c: d\n", "a.yaml:4:2: did not find expected key"},
		"a block of text":             {"labels:\n  a: |\n    it's [ a {\n    \"\n  b: c\n d: e\n", "a.yaml:6:2: did not find expected key"},
		"umlauts before":              {"labels: {\"ä\": \"ö\", b: [}\n", "a.yaml:1:23: the [ that begins here"},
		"a brace too much":            {"on: true\nlabels: {a: b}}\nscale: 1\n", "a.yaml:2:1: did not find expected"},
		"a brace too much for JSON":   {"{\"on\": true,\n\"scale\": 1}\n}\n", "a.yaml:3:1: did not find expected <document start> (check the indentation, and whether there is a bracket"},
		"a second document after ...": {"on: true\n...\nscale: 1\n", "a.yaml:"},
		"second document, unreadable": {"on: true\n# x\n---\nlabels: [\n", "a.yaml:3:1: a second document begins here (---)"},
		"second document of two":      {"---\n# x\n---\non: true\n", "a.yaml:3:1: a second document begins here (---)"},
	} {
		_, err := load(t, c.doc)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: got\n%v\nwant\n%s", name, err, c.want)
		}
		if err != nil && !strings.Contains(strings.SplitN(err.Error(), "\n", 2)[0], " (") {
			t.Errorf("%s: no hint: %v", name, err)
		}
	}
}

// Each line of a good document may be broken in turn: the fault is in this line. And the search takes no time.
func TestEachLineBroken(t *testing.T) {
	var lines []string
	for i := range 400 {
		lines = append(lines, fmt.Sprintf("  - {name: s%d, driver: bme280, address: 0x76} # it's {", i))
	}
	for i := range lines {
		if i%37 != 0 {
			continue
		}
		broken := append([]string(nil), lines...)
		broken[i] = strings.Replace(broken[i], "}", "", 1)
		start := time.Now()
		_, err := load(t, "sensors:\n"+strings.Join(broken, "\n")+"\n")
		if want := fmt.Sprintf("a.yaml:%d:5: the { that begins here", i+2); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("line %d took %v", i+2, d)
		}
	}
}

func FuzzSyntax(f *testing.F) {
	f.Add("a: {b: [c, \"d\"], e: 'f'}\n- x\n\t|\n")
	f.Fuzz(func(t *testing.T, doc string) {
		if len(doc) > 2048 {
			return
		}
		var v file
		if err := Load(&v, opt, Source{"f", []byte(doc)}); err != nil {
			for _, x := range err.(Faults) {
				if x.Line < 0 || x.Line > strings.Count(doc, "\n")+1 || x.Line > 0 && x.Col < 1 {
					t.Errorf("%q: %+v", doc, x)
				}
			}
		}
	})
}
