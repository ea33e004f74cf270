package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// node is as much of a JSON schema as the page needs.
type node struct {
	Type        any             `json:"type"`
	Description string          `json:"description"`
	Default     any             `json:"default"`
	Const       any             `json:"const"`
	Enum        []any           `json:"enum"`
	Minimum     *float64        `json:"minimum"`
	Maximum     *float64        `json:"maximum"`
	Pattern     string          `json:"pattern"`
	Required    []string        `json:"required"`
	Properties  map[string]node `json:"properties"`
	Additional  json.RawMessage `json:"additionalProperties"`
	Items       *node           `json:"items"`
	OneOf       []node          `json:"oneOf"`
}

const intro = `.TH FIELDAGENT.YAML 5 %s fieldagent "File formats"
.SH NAME
fieldagent.yaml \- configuration of the fieldagent device agent
.SH DESCRIPTION
.B /etc/fieldagent/fieldagent.yaml
is YAML (or JSON, which is YAML too). The files
.I /etc/fieldagent/conf.d/*.yaml
are laid over it in the order of their names: sections are merged key by key, lists replace lists.
Unknown keys, wrong types, impossible values and clashes are faults.
.B fieldagent config check
names all of them, each with file, line and a hint; the service does not start with faults, and a reload refuses them.
.PP
A time is written 500ms, 30s, 15m or 2h; a size 64KiB or 256MiB.
.PP
Without
.B mqtt.servers
the agent reads, counts and stores, and waits for an address.
.PP
After a change:
.B fieldagent config check && systemctl reload fieldagent
.SH SECRETS
Passwords and keys are never in this file. A key that ends in
.B _file
names a file that others cannot read (mode 0640, group fieldagent). A name without a slash is a systemd credential:
.B LoadCredential=mqtt-password:/etc/fieldagent/credentials/mqtt-password
in a drop-in of the unit, and
.B password_file: mqtt-password
here. The file is read anew at each connect.
`

const outro = `.SH FILES
.I /usr/share/doc/fieldagent/examples
has examples;
.I /usr/share/fieldagent/schema.json
is the JSON Schema for editors.
.SH SEE ALSO
.BR fieldagent (8)
`

// yamlPage makes fieldagent.yaml(5) of the configuration's schema, so that both always agree.
func yamlPage(schema []byte, at time.Time) (string, error) {
	var root node
	if err := json.Unmarshal(schema, &root); err != nil {
		return "", fmt.Errorf("schema: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, intro, at.Format(time.DateOnly))
	for _, name := range slices.Sorted(maps.Keys(root.Properties)) {
		n := root.Properties[name]
		fmt.Fprintf(&b, ".SH \"SECTION %s\"\n%s\n", strings.ToUpper(escape(name)), escape(n.Description))
		keys(&b, n, name)
	}
	b.WriteString(outro)
	return b.String(), nil
}

// keys writes everything below a node.
func keys(b *strings.Builder, n node, path string) {
	if n.Items != nil {
		n, path = *n.Items, path+"[]"
	}
	for _, name := range slices.Sorted(maps.Keys(n.Properties)) {
		p := n.Properties[name]
		fmt.Fprintf(b, ".TP\n\\fB%s\\fR%s\n%s\n", escape(path+"."+name), escape(facts(p, slices.Contains(n.Required, name))), escape(orDash(p.Description)))
		keys(b, p, path+"."+name)
	}
	var extra node
	if json.Unmarshal(n.Additional, &extra) == nil && extra.Properties != nil {
		keys(b, extra, path+".NAME")
	}
	for _, o := range n.OneOf {
		for _, key := range slices.Sorted(maps.Keys(o.Properties)) {
			if c := o.Properties[key].Const; c != nil {
				fmt.Fprintf(b, ".SS \"with %s: %v\"\n", escape(key), c)
				delete(o.Properties, key)
				if len(o.Properties) == 0 {
					b.WriteString("No options of its own.\n")
				}
				break
			}
		}
		keys(b, o, path)
	}
}

// facts are type, default and limits, in brackets.
func facts(n node, required bool) string {
	var f []string
	switch t := n.Type.(type) {
	case string:
		f = append(f, map[string]string{"object": "section", "array": "list"}[t])
		if f[0] == "" {
			f[0] = t
		}
	case []any:
		f = append(f, map[bool]string{true: "time", false: "size"}[strings.Contains(n.Pattern, "ms")])
	}
	if required {
		f = append(f, "must be given")
	}
	if n.Default != nil {
		f = append(f, fmt.Sprintf("default %v", n.Default))
	}
	if n.Enum != nil {
		f = append(f, strings.ReplaceAll(strings.Trim(fmt.Sprint(n.Enum), "[]"), " ", " or "))
	}
	if n.Minimum != nil && n.Maximum != nil && *n.Minimum < *n.Maximum {
		f = append(f, fmt.Sprintf("%v to %v", *n.Minimum, *n.Maximum))
	}
	if len(f) == 0 {
		return ""
	}
	return " (" + strings.Join(f, ", ") + ")"
}

func orDash(s string) string {
	if s == "" {
		return "See the parts below."
	}
	return s
}

// escape keeps roff from reading text as requests.
func escape(s string) string {
	s = strings.ReplaceAll(s, `\`, `\e`)
	s = strings.ReplaceAll(s, "-", `\-`)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
