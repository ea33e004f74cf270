package install

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPackage looks at the .deb as Debian's own tools do, and at what is in it.
func TestPackage(t *testing.T) {
	deb := build(t, "amd64")
	dir := t.TempDir()
	if err := run(exec.Command("dpkg-deb", "--extract", deb, dir)); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }

	t.Run("lintian", func(t *testing.T) {
		cmd := exec.Command("lintian", "--allow-root", "--fail-on=error", "--tag-display-limit=0", deb)
		cmd.Dir = dir // it wants to come back to where it was
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Error(err)
		}
		overrides, err := os.ReadFile(in("usr/share/lintian/overrides/fieldagent"))
		if n := len(regexp.MustCompile(`(?m)^[^#\n]`).FindAll(overrides, -1)); err != nil || n != 1 {
			t.Errorf("%d overrides (%v), want the one that is explained there", n, err)
		}
	})

	t.Run("unit", func(t *testing.T) {
		// verify looks for the program where the unit says it is: in the extracted package.
		unit, err := os.ReadFile(in("usr/lib/systemd/system/fieldagent.service"))
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(unit), "/usr/bin/fieldagent", in("usr/bin/fieldagent"))
		file := filepath.Join(t.TempDir(), "fieldagent.service")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("systemd-analyze verify: %v\n%s", err, out)
		}
		out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=13", "--no-pager", file).CombinedOutput() // tenths
		if err != nil {
			t.Errorf("more exposed than 1.3: %v\n%s", err, out)
		}
		t.Logf("%s", regexp.MustCompile(`Overall exposure.*`).Find(out))
		for _, rule := range []string{"network-online", "time-sync", "SupplementaryGroups="} { // reasons stand in the unit
			if regexp.MustCompile(`(?m)^[A-Z][A-Za-z]*=.*` + rule + `|^` + rule).Match(unit) {
				t.Errorf("the unit has %s", rule)
			}
		}
		limit, high := number(t, unit, `GOMEMLIMIT=(\d+)MiB`), number(t, unit, `MemoryHigh=(\d+)M`)
		if highest := number(t, unit, `MemoryMax=(\d+)M`); limit >= high || high >= highest {
			t.Errorf("memory: GOMEMLIMIT %d, MemoryHigh %d, MemoryMax %d: each must be below the next", limit, high, highest)
		}
	})

	t.Run("pages", func(t *testing.T) {
		for _, page := range []string{"man8/fieldagent.8.gz", "man5/fieldagent.yaml.5.gz"} {
			out, err := exec.Command("sh", "-c", "zcat "+in("usr/share/man/"+page)+" | mandoc -T lint -W warning").CombinedOutput()
			if err != nil {
				t.Errorf("%s: %v\n%s", page, err, out)
			}
		}
		page, err := exec.Command("sh", "-c", "zcat "+in("usr/share/man/man5/fieldagent.yaml.5.gz")).Output()
		if err != nil {
			t.Fatal(err)
		}
		schema, err := os.ReadFile(in("usr/share/fieldagent/schema.json"))
		if err != nil {
			t.Fatal(err)
		}
		var root any
		if err := json.Unmarshal(schema, &root); err != nil {
			t.Fatal(err)
		}
		keys := map[string]bool{}
		properties(root, keys)
		if len(keys) < 60 {
			t.Errorf("only %d keys in the schema", len(keys))
		}
		for key := range keys {
			if key != "driver" && !bytes.Contains(page, []byte("."+key+`\fR`)) && !bytes.Contains(page, []byte(strings.ToUpper(`"SECTION `+key+`"`))) {
				t.Errorf("fieldagent.yaml(5) has no %s", key)
			}
		}
	})

	t.Run("configuration", func(t *testing.T) {
		examples, _ := filepath.Glob(in("usr/share/doc/fieldagent/examples/*.yaml"))
		if len(examples) < 5 {
			t.Errorf("examples: %v", examples)
		}
		for _, file := range append(examples, in("etc/fieldagent/fieldagent.yaml")) {
			if out, err := exec.Command(in("usr/bin/fieldagent"), "config", "check", file).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", file, err, out)
			}
		}
		// What stands there as a comment must be true once the # is gone.
		text, err := os.ReadFile(in("etc/fieldagent/fieldagent.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		full := filepath.Join(t.TempDir(), "full.yaml")
		if err := os.WriteFile(full, regexp.MustCompile(`(?m)^( *)#(\S|  -)`).ReplaceAll(text, []byte("$1$2")), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(in("usr/bin/fieldagent"), "config", "check", full).CombinedOutput(); err != nil || !strings.Contains(string(out), "2 sensors, 1 inputs, 1 meters, 1 outputs") {
			t.Errorf("uncommented: %v\n%s", err, out)
		}
	})

	t.Run("completions", func(t *testing.T) {
		out, err := exec.Command("bash", "-c", ". "+in("usr/share/bash-completion/completions/fieldagent")+" && complete -p fieldagent").CombinedOutput()
		if err != nil {
			t.Errorf("bash: %v %s", err, out)
		}
		for name, mark := range map[string]string{"zsh/vendor-completions/_fieldagent": "#compdef fieldagent", "fish/vendor_completions.d/fieldagent.fish": "complete -c fieldagent"} {
			if b, err := os.ReadFile(in("usr/share/" + name)); err != nil || !strings.Contains(string(b), mark) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})

	t.Run("bill of materials", func(t *testing.T) {
		b, err := os.ReadFile(in("usr/share/doc/fieldagent/sbom.cdx.json"))
		if err != nil {
			t.Fatal(err)
		}
		var bom struct {
			BOMFormat, SpecVersion, SerialNumber string
			Metadata                             struct {
				Component struct{ Hashes []struct{ Content string } }
			}
			Components []struct{ PURL string }
		}
		if err := json.Unmarshal(b, &bom); err != nil {
			t.Fatal(err)
		}
		if bom.BOMFormat != "CycloneDX" || bom.SpecVersion != "1.5" || !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(bom.SerialNumber) {
			t.Errorf("%s %s %s", bom.BOMFormat, bom.SpecVersion, bom.SerialNumber)
		}
		binary, err := os.ReadFile(in("usr/bin/fieldagent"))
		if err != nil {
			t.Fatal(err)
		}
		if h := bom.Metadata.Component.Hashes; len(h) != 1 || h[0].Content != fmt.Sprintf("%x", sha256.Sum256(binary)) {
			t.Errorf("it is of another binary: %v", h)
		}
		info, err := buildinfo.ReadFile(in("usr/bin/fieldagent"))
		if err != nil {
			t.Fatal(err)
		}
		if len(info.Deps) < 8 || len(bom.Components) != len(info.Deps)+1 {
			t.Errorf("%d components for %d modules and the standard library", len(bom.Components), len(info.Deps))
		}
		for _, d := range info.Deps {
			if !bytes.Contains(b, []byte(`"pkg:golang/`+d.Path+"@"+d.Version+`"`)) {
				t.Errorf("no %s", d.Path)
			}
		}
	})
}

// TestReproducible builds the packages in two places, one with another umask; they must be the same bytes.
func TestReproducible(t *testing.T) {
	targets := []string{"amd64"}
	if !testing.Short() {
		targets = []string{"arm-6", "arm64", "amd64", "riscv64"}
	}
	var sums [2]map[string]string
	for i := range sums {
		sums[i] = map[string]string{}
		tree := filepath.Join(t.TempDir(), strings.Repeat("deeper/", i+1))
		if err := os.MkdirAll(tree, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := run(exec.Command("sh", "-c", "cd "+repository+" && git ls-files -zco --exclude-standard | tar --null -c -T - | tar -x -C "+tree)); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			if err := run(exec.Command("chmod", "-R", "go-rwx", tree)); err != nil {
				t.Fatal(err)
			}
		}
		link(t, tree)
		for _, target := range targets {
			dir := t.TempDir()
			if err := run(exec.Command("make", "-s", "-C", tree, "package-"+target, "PACKAGE_DIR="+dir, "VERSION=1.2.3", "PKG_VERSION=1.2.3", "SOURCE_DATE_EPOCH=1700000000")); err != nil {
				t.Fatal(err)
			}
			files, _ := filepath.Glob(filepath.Join(dir, "*"))
			if len(files) != 3 {
				t.Fatalf("make package-%s made %v, want a deb, an rpm and an apk", target, files)
			}
			for _, file := range files {
				data, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				sums[i][filepath.Base(file)] = fmt.Sprintf("%x", sha256.Sum256(data))
			}
		}
	}
	for name, sum := range sums[0] {
		if sums[1][name] != sum {
			t.Errorf("%s: %s and %s", name, sum, sums[1][name])
		} else {
			t.Logf("%-34s %s, twice", name, sum)
		}
	}
}

func number(t *testing.T, text []byte, pattern string) int {
	t.Helper()
	n := 0
	if m := regexp.MustCompile(pattern).FindSubmatch(text); m != nil {
		_, _ = fmt.Sscan(string(m[1]), &n)
	}
	if n == 0 {
		t.Fatalf("no %s in the unit", pattern)
	}
	return n
}

// properties collects the names of all keys that a schema allows.
func properties(v any, keys map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for word, x := range v {
			p, ok := x.(map[string]any)
			if word != "properties" || !ok {
				properties(x, keys)
				continue
			}
			for name, schema := range p {
				keys[name] = true
				properties(schema, keys)
			}
		}
	case []any:
		for _, x := range v {
			properties(x, keys)
		}
	}
}
