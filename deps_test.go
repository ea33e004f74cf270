package fieldagent

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "fieldagent"

// inner says which packages of this module a package may import. A package that is not named here fails the test:
// whoever adds one decides where it stands.
var inner = map[string][]string{
	"fieldagent":                    {},
	"fieldagent/configs":            {},
	"fieldagent/queue":              {},
	"fieldagent/agent/mqtt":         {},
	"fieldagent/agent/config":       {},
	"fieldagent/sensors":            {},
	"fieldagent/sensors/board":      {"sensors"},
	"fieldagent/sensors/sensortest": {"sensors"},
	"fieldagent/sensors/drivers":    {"sensors"},
	"fieldagent/agent":              {"agent/config", "agent/mqtt", "queue", "sensors"},
	"fieldagent/cmd/...":            {"..."},
}

// outer says which packages may import a foreign module; a module that is not named here may not be imported at all.
// The longest name that fits counts.
var outer = map[string][]string{
	"go.etcd.io/bbolt":                    {"queue"},
	"github.com/eclipse/paho.mqtt.golang": {"agent/mqtt"},
	"github.com/eclipse/paho.golang":      {"agent/mqtt"},
	"github.com/gorilla/websocket":        {"agent/mqtt"},
	"gopkg.in/yaml.v3":                    {"agent/config"},
	"github.com/warthog618/go-gpiocdev":   {"sensors/board"},
	"periph.io/x/host/v3":                 {"sensors/board"},
	"periph.io/x/devices/v3":              {"sensors/drivers"},
	"periph.io/x/conn/v3":                 {"sensors", "sensors/board", "sensors/drivers", "sensors/sensortest"}, // the port interfaces
	"github.com/spf13/cobra":              {"cmd/..."},
	"github.com/spf13/pflag":              {"cmd/..."},
	"golang.org/x/sys":                    {"..."},
	"golang.org/x/sync":                   {"..."},
}

// testOnly are foreign modules and inner packages that tests may use besides what their package may.
var testOnly = map[string][]string{
	"fieldagent/agent":              {"sensors/sensortest", "sensors/drivers"},
	"fieldagent/sensors":            {"sensors/sensortest"},
	"fieldagent/sensors/board":      {"sensors/sensortest"},
	"fieldagent/sensors/drivers":    {"sensors/sensortest", "sensors/board"},
	"fieldagent/configs":            {"agent", "agent/config", "sensors", "sensors/drivers"},
	"fieldagent/agent/config":       {},
	"fieldagent/sensors/sensortest": {"sensors/drivers"},
}

type goPackage struct {
	ImportPath   string
	Standard     bool
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// TestImportPolicy enforces the two sentences of ARCHITECTURE.md: leaves do not know one another, only agent knows two of
// them, only cmd knows all; one foreign library, one package.
func TestImportPolicy(t *testing.T) {
	packages := list(t, "./...")
	if len(packages) < 5 {
		t.Fatalf("go list found %d packages: the test looks in the wrong place", len(packages))
	}
	standard := map[string]bool{}
	for _, p := range list(t, "std") {
		standard[p.ImportPath] = true
	}
	for _, p := range packages {
		allowed, known := rule(inner, p.ImportPath)
		if !known {
			t.Errorf("%s is not in the import policy: decide in deps_test.go what it may import", p.ImportPath)
			continue
		}
		check := func(imports, extra []string, where string) {
			for _, path := range imports {
				if standard[path] || path == "C" || path == p.ImportPath {
					continue
				}
				if msg := forbidden(p.ImportPath, path, slices.Concat(allowed, extra)); msg != "" {
					t.Errorf("%s%s imports %s: %s", p.ImportPath, where, path, msg)
				}
			}
		}
		check(p.Imports, nil, "")
		check(p.TestImports, testOnly[p.ImportPath], " (test)")
		check(p.XTestImports, testOnly[p.ImportPath], " (test)")
	}
}

// TestPolicyCanFail shows that each sentence is really enforced.
func TestPolicyCanFail(t *testing.T) {
	for _, c := range []struct{ from, to string }{
		{"fieldagent/queue", "fieldagent/sensors"},
		{"fieldagent/sensors", "fieldagent/agent"},
		{"fieldagent/agent/mqtt", "fieldagent/queue"},
		{"fieldagent/agent", "go.etcd.io/bbolt"},
		{"fieldagent/agent/mqtt", "gopkg.in/yaml.v3"},
		{"fieldagent/queue", "example.org/anything"},
		{"fieldagent/sensors/drivers", "periph.io/x/host/v3/sysfs"},
	} {
		allowed, _ := rule(inner, c.from)
		if forbidden(c.from, c.to, allowed) == "" {
			t.Errorf("the policy lets %s import %s", c.from, c.to)
		}
	}
	for _, c := range []struct{ from, to string }{
		{"fieldagent/agent", "fieldagent/queue"},
		{"fieldagent/queue", "go.etcd.io/bbolt"},
		{"fieldagent/cmd/fieldagent", "fieldagent/sensors/board"},
		{"fieldagent/sensors/drivers", "periph.io/x/devices/v3/bmxx80"},
	} {
		allowed, _ := rule(inner, c.from)
		if msg := forbidden(c.from, c.to, allowed); msg != "" {
			t.Errorf("the policy forbids %s to import %s: %s", c.from, c.to, msg)
		}
	}
}

// forbidden says why from may not import to, or nothing.
func forbidden(from, to string, allowed []string) string {
	if to == module || strings.HasPrefix(to, module+"/") {
		if matches(allowed, to) {
			return ""
		}
		return "leaves do not know one another, only agent knows two of them, only cmd knows all (ARCHITECTURE.md)"
	}
	users, known := rule(outer, to)
	switch {
	case !known:
		return "no package may use this library: is it worth its bytes? then name its one user in deps_test.go"
	case !matches(users, from):
		return "one foreign library, one package; this one belongs to " + strings.Join(users, ", ")
	}
	return ""
}

// rule finds the entry for path: the longest name that is path, a folder above it, or a pattern name/... over it.
func rule(rules map[string][]string, path string) (allowed []string, ok bool) {
	best := -1
	for name, r := range rules {
		base, pattern := strings.CutSuffix(name, "/...")
		below := strings.HasPrefix(path, base+"/") && (pattern || !strings.HasPrefix(path, module+"/"))
		if (path == base || below) && len(base) > best {
			best, allowed, ok = len(base), r, true
		}
	}
	return allowed, ok
}

// matches tells whether path is one of the packages below the module that patterns name.
func matches(patterns []string, path string) bool {
	short := strings.TrimPrefix(path, module+"/")
	return slices.ContainsFunc(patterns, func(p string) bool {
		base, pattern := strings.CutSuffix(p, "...")
		return p == short || pattern && strings.HasPrefix(short, base)
	})
}

func list(t *testing.T, what string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Standard,Imports,TestImports,XTestImports", what)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v", what, err)
	}
	var all []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("go list %s: %v", what, err)
		}
		all = append(all, p)
	}
}
