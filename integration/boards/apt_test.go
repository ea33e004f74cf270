package boards

import "testing"

func TestAptSource(t *testing.T) {
	for _, c := range []struct {
		name, text string
		parse      func(string) (source, bool)
		want       source
	}{
		{"one line", "# a comment\ndeb http://m.example/security bookworm-security main\ndeb http://m.example/debian/ bookworm main contrib\n", oneLine, source{"http://m.example/debian/", ""}},
		{"with a key", "deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian bookworm main\n", oneLine, source{"http://m.example/debian", "/k.gpg"}},
		{"none", "deb-src http://m.example/debian bookworm main\ndeb http://m.example/x bookworm contrib\n", oneLine, source{}},
		{"stanzas", "Types: deb\nURIs: http://m.example/sec\nSuites: bookworm-security\nComponents: main\n\nTypes: deb deb-src\n# snapshot\nURIs: http://m.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n", deb822, source{"http://m.example/debian", "/k.gpg"}},
		{"switched off", "Types: deb\nURIs: http://m.example/debian\nSuites: bookworm\nComponents: main\nEnabled: no\n", deb822, source{}},
	} {
		got, ok := c.parse(c.text)
		if got != c.want || ok != (c.want.uri != "") {
			t.Errorf("%s: %+v %v, want %+v", c.name, got, ok, c.want)
		}
	}
	list := source{"http://m.example/debian", "/k.gpg"}.list()
	if want := "deb [signed-by=/k.gpg] http://m.example/debian bookworm main\ndeb [signed-by=/k.gpg] http://m.example/debian bookworm-backports main\n"; list != want {
		t.Errorf("list:\n%swant:\n%s", list, want)
	}
}
