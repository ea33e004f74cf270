package verify

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const x = "0badcafe-0000000000000001"

func log(t *testing.T, lines string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "log")
	var out strings.Builder
	for _, l := range strings.Split(strings.TrimSpace(lines), "\n") {
		out.WriteString("1000000 " + strings.TrimSpace(l))
		if strings.Count(strings.TrimSpace(l), " ") == 6 {
			out.WriteString(" ")
		}
		out.WriteString("\n")
	}
	if err := os.WriteFile(name, []byte(out.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestExplain(t *testing.T) {
	const once = "1 < PUBLISH 5 2 0 " + x + "\n1 > PUBREC 5 0 0 -\n1 < PUBREL 5 0 0 -\n1 > PUBCOMP 5 0 0 -"
	const twice = once + "\n1 < PUBLISH 6 2 0 " + x
	for _, c := range []struct{ name, agent, consumer, culprit string }{
		{"one handshake, delivered twice", "1 > PUBLISH 9 2 0 " + x + "\n1 < PUBREC 9 0 0 -\n1 > PUBREL 9 0 0 -\n1 < PUBCOMP 9 0 0 -", twice, "broker"},
		{"DUP before PUBREL, delivered twice", "1 > PUBLISH 9 2 0 " + x + "\n2 < CONNACK 0 0 0 - present\n2 > PUBLISH 9 2 1 " + x + "\n2 < PUBREC 9 0 0 -\n2 > PUBREL 9 0 0 -", twice, "broker"},
		{"published after PUBREL", "1 > PUBLISH 9 2 0 " + x + "\n1 < PUBREC 9 0 0 -\n1 > PUBREL 9 0 0 -\n2 < CONNACK 0 0 0 - present\n2 > PUBLISH 9 2 1 " + x, twice, "agent"},
		{"repeated without DUP", "1 > PUBLISH 9 2 0 " + x + "\n2 > PUBLISH 9 2 0 " + x, twice, "agent"},
		{"session lost", "1 > PUBLISH 9 2 0 " + x + "\n1 < PUBREC 9 0 0 -\n1 > PUBREL 9 0 0 -\n2 < CONNACK 0 0 0 - absent\n2 > PUBLISH 9 2 0 " + x, twice, "session lost"},
		{"session lost after the confirmation", "1 > PUBLISH 9 2 0 " + x + "\n1 < PUBREC 9 0 0 -\n1 > PUBREL 9 0 0 -\n1 < PUBCOMP 9 0 0 -\n2 < CONNACK 0 0 0 - absent\n2 > PUBLISH 9 2 0 " + x, twice, "session lost"},
		{"confirmed, never delivered", "1 > PUBLISH 9 2 0 " + x + "\n1 < PUBREC 9 0 0 -\n1 > PUBREL 9 0 0 -\n1 < PUBCOMP 9 0 0 -", "1 < CONNACK 0 0 0 - absent", "broker"},
		{"never published", "1 < CONNACK 0 0 0 - absent", "1 < CONNACK 0 0 0 - absent", "agent"},
		{"given up", "1 > PUBLISH 9 2 0 " + x + "\n1 < PUBREC 9 0 0 -", "1 < CONNACK 0 0 0 - absent", "agent"},
		{"same id repeated by the broker is one delivery", "1 > PUBLISH 9 2 0 " + x, "1 < PUBLISH 5 2 0 " + x + "\n2 < PUBLISH 5 2 1 " + x, "unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			all, err := Explain(log(t, c.agent), log(t, c.consumer), []string{x})
			if err != nil || len(all) != 1 || all[0].Culprit != c.culprit {
				t.Fatalf("%+v, %v; want %s", all, err, c.culprit)
			}
		})
	}
}
