package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Secrets stand in every place where an owner could have put one; the bundle must have none of them.
func TestDiagHasNoSecrets(t *testing.T) {
	dir := t.TempDir()
	key := "-----BEGIN EC PRIVATE KEY-----\nS3CRETkeybytes0\n-----END EC PRIVATE KEY-----\n"
	for name, text := range map[string]string{
		"password": "S3CRETpassword1\n", "device.key": key,
		"fieldagent.yaml": `device: {id: pump-7, labels: {site: north}}
mqtt:
  servers: ["mqtts://127.0.0.1:1"]
  username: pump-7
  password_file: ` + dir + `/password
  tls: {cert_file: ` + dir + `/device.pem, key_file: ` + dir + `/device.key}
commands:
  - {name: call, argv: [/usr/bin/call, "--token", "S3CRETargument2", "--api-key=S3CRETargument3"]}
`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := &program{stdout: io.Discard, stderr: io.Discard, config: filepath.Join(dir, "fieldagent.yaml"), state: filepath.Join(dir, "state"), socket: filepath.Join(dir, "socket")}
	d := &diag{p: p, doctor: &doctor{p: p, root: dir, service: func(context.Context) serviceInfo { return nil }},
		run: func(_ context.Context, name string, args ...string) []byte {
			return []byte("Environment=MQTT_TOKEN=S3CRETenvironment4 SEEN=1\npassword: \"S3CRETjournal5 and more\"\nmqtt://user:S3CRETurl6@host\nsaid S3CRETpassword1 aloud\nAuthorization: Bearer S3CRETbearer7\n" + key)
		},
		files: func(name string) ([]byte, error) {
			if name == "/proc/cmdline" {
				return []byte("console=tty1 wifi.psk=S3CRETpsk8 quiet"), nil
			}
			return nil, errors.New("not here")
		}}
	var out bytes.Buffer
	names, err := d.write(t.Context(), &out)
	if err != nil {
		t.Fatal(err)
	}
	all := unpack(t, &out)
	for _, want := range []string{"config.yaml", "doctor.txt", "status.json", "journal.txt", "unit.txt", "version.txt", "files/proc/cmdline"} {
		if !slices.Contains(names, want) || all["fieldagent-diag/"+want] == "" {
			t.Errorf("the bundle has no %s: %v", want, names)
		}
	}
	for name, text := range all {
		if i := strings.Index(text, "S3CRET"); i >= 0 {
			t.Errorf("%s: %s", name, text[i:min(len(text), i+20)])
		}
	}
	for _, want := range []string{"pump-7", "site: north", "/usr/bin/call"} { // what helps is still there
		if !strings.Contains(all["fieldagent-diag/config.yaml"], want) {
			t.Errorf("no %q in\n%s", want, all["fieldagent-diag/config.yaml"])
		}
	}
	if !strings.Contains(all["fieldagent-diag/journal.txt"], "SEEN=1") || !strings.Contains(all["fieldagent-diag/doctor.txt"], "FAULT TCP to 127.0.0.1:1") {
		t.Errorf("journal:\n%s\ndoctor:\n%s", all["fieldagent-diag/journal.txt"], all["fieldagent-diag/doctor.txt"])
	}
}

func unpack(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for in := tar.NewReader(z); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		all[h.Name] = string(b)
	}
}
