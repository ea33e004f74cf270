package boards

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// suite is the Debian release whose kernels the boards boot; QEMU 10 is in its backports.
const suite = "bookworm"

// source is where this machine gets its Debian packages from.
type source struct {
	uri    string
	signed string // file of the key that signs it; "" is apt's own
}

// list is a one-line sources.list of the suite and its backports.
func (s source) list() string {
	var b strings.Builder
	for _, release := range []string{suite, suite + "-backports"} {
		b.WriteString("deb ")
		if s.signed != "" {
			b.WriteString("[signed-by=" + s.signed + "] ")
		}
		b.WriteString(s.uri + " " + release + " main\n")
	}
	return b.String()
}

// aptSource finds the suite in the machine's own apt configuration: its mirror is the one that can be reached from here.
func aptSource(ctx context.Context) (source, error) {
	out, err := exec.CommandContext(ctx, "apt-config", "shell", "list", "Dir::Etc::sourcelist/f", "parts", "Dir::Etc::sourceparts/d").Output()
	if err != nil {
		return source{}, fmt.Errorf("apt-config: %w: the boards boot Debian's kernels, which are fetched with apt", err)
	}
	var files []string
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, "'")
		if key == "list" {
			files = append(files, value)
			continue
		}
		for _, ext := range []string{"*.list", "*.sources"} {
			more, _ := filepath.Glob(filepath.Join(value, ext))
			files = append(files, more...)
		}
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		parse := oneLine
		if strings.HasSuffix(f, ".sources") {
			parse = deb822
		}
		if s, ok := parse(string(text)); ok {
			return s, nil
		}
	}
	return source{}, fmt.Errorf("no source of Debian %s main in %v: the boards boot its kernels; add one, or run this on Debian 12", suite, files)
}

// oneLine finds the suite in a sources.list (sources.list(5)).
func oneLine(text string) (source, bool) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		var s source
		if rest = strings.TrimSpace(rest); strings.HasPrefix(rest, "[") {
			var options string
			options, rest, _ = strings.Cut(rest[1:], "]")
			for _, o := range strings.Fields(options) {
				if v, ok := strings.CutPrefix(o, "signed-by="); ok {
					s.signed = v
				}
			}
		}
		if f := strings.Fields(rest); len(f) >= 3 && f[1] == suite && slices.Contains(f[2:], "main") {
			s.uri = f[0]
			return s, true
		}
	}
	return source{}, false
}

// deb822 finds the suite in a file of stanzas (sources.list(5)).
func deb822(text string) (source, bool) {
	for stanza := range strings.SplitSeq(strings.ReplaceAll(text, "\r", ""), "\n\n") {
		field := map[string]string{}
		for line := range strings.Lines(stanza) {
			if key, value, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, " ") {
				field[strings.ToLower(key)] = strings.TrimSpace(value)
			}
		}
		has := func(key, value string) bool { return slices.Contains(strings.Fields(field[key]), value) }
		uris := strings.Fields(field["uris"])
		if len(uris) > 0 && has("types", "deb") && has("suites", suite) && has("components", "main") && field["enabled"] != "no" {
			return source{uris[0], field["signed-by"]}, true
		}
	}
	return source{}, false
}

// Mirror returns where this machine gets its Debian packages from, and the release that the boards run.
func Mirror(ctx context.Context) (uri, release string, err error) {
	s, err := aptSource(ctx)
	return s.uri, suite, err
}
