// Pages writes what is generated for the packages: pages yaml < schema.json is the manual page fieldagent.yaml(5);
// pages changelog VERSION < CHANGELOG.md is a Debian changelog. SOURCE_DATE_EPOCH dates both.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

func main() {
	in, err := io.ReadAll(os.Stdin)
	var out string
	switch {
	case err != nil:
	case len(os.Args) == 2 && os.Args[1] == "yaml":
		out, err = yamlPage(in, date())
	case len(os.Args) == 3 && os.Args[1] == "changelog":
		out = changelog(string(in), os.Args[2], date())
	default:
		fmt.Fprintln(os.Stderr, "usage: pages yaml < schema.json, or pages changelog VERSION < CHANGELOG.md")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "pages:", err)
		os.Exit(1)
	}
	fmt.Print(out)
}

func date() time.Time {
	epoch, _ := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	return time.Unix(epoch, 0).UTC()
}

// changelog takes the newest section's points.
func changelog(text, version string, at time.Time) string {
	var points []string
	section := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "## ") {
			section++
		}
		if p, ok := strings.CutPrefix(line, "- "); ok && section == 1 {
			points = append(points, fold("  * "+strings.ReplaceAll(p, "`", ""), 78))
		}
	}
	if points == nil {
		points = []string{"  * Built from the source; see CHANGELOG.md there."}
	}
	return fmt.Sprintf("fieldagent (%s) stable; urgency=medium\n\n%s\n\n -- The fieldagent authors <fieldagent@example.net>  %s\n", version, strings.Join(points, "\n"), at.Format(time.RFC1123Z))
}

// fold breaks a line at spaces; what follows is indented by four.
func fold(line string, width int) string {
	var b strings.Builder
	for utf8.RuneCountInString(line) > width {
		cut := strings.LastIndexByte(string([]rune(line)[:width+1]), ' ')
		if cut <= 4 {
			break
		}
		b.WriteString(line[:cut] + "\n")
		line = "    " + line[cut+1:]
	}
	return b.String() + line
}
