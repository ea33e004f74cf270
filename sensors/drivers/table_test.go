package drivers

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of drivers into README.md")

// TestTable holds the table of README.md to the code: make readme writes it.
func TestTable(t *testing.T) {
	const file, begin, end = "../../README.md", "<!-- drivers: make readme -->\n", "<!-- end of drivers -->"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	old, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no table of drivers between %q and %q", file, begin, end)
	}
	if old == table() {
		return
	}
	if !*update {
		t.Fatalf("the table of drivers in README.md is old: make readme")
	}
	if err := os.WriteFile(file, []byte(before+begin+table()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func table() string {
	var b strings.Builder
	b.WriteString("| driver | what it reads | values |\n|---|---|---|\n")
	for _, d := range All {
		var names []string
		for _, q := range d.Quantities {
			names = append(names, "`"+q.Name+"`")
		}
		if len(names) > 4 {
			names = append(names[:3], "…")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", d.Name, d.Summary, strings.Join(names, " "))
	}
	return b.String()
}
