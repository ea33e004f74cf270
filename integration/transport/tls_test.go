package transport

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fieldagent/agent/mqtt"
	"fieldagent/integration/broker"
)

// tlsBroker is mosquitto with a certificate; with clients, it wants one of them too.
func tlsBroker(t *testing.T, a *authority, cert, key string, clients bool) broker.Broker {
	t.Helper()
	port := freePort(t)
	return startBroker(t, port, fmt.Sprintf("listener %d 127.0.0.1", port), "cafile "+a.file, "certfile "+cert, "keyfile "+key, fmt.Sprintf("require_certificate %v", clients))
}

// Each way in which a handshake fails is one line with the remedy, is tried again, and is over when its cause is.
func TestTLS(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	goodCert, goodKey := a.issue("good", tomorrow(), "127.0.0.1")
	nameCert, nameKey := a.issue("named", tomorrow(), "broker.example")
	yesterday := time.Now().AddDate(0, 0, -1)
	oldCert, oldKey := a.issue("old", yesterday, "127.0.0.1")
	clientCert, clientKey := a.issue("client", tomorrow())
	otherCert, otherKey := other.issue("other", tomorrow())
	openKey := filepath.Join(t.TempDir(), "open.key")
	key, err := os.ReadFile(clientKey)
	if err == nil {
		err = os.WriteFile(openKey, key, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	good, named := tlsBroker(t, a, goodCert, goodKey, false), tlsBroker(t, a, nameCert, nameKey, false)
	old, mutual := tlsBroker(t, a, oldCert, oldKey, false), tlsBroker(t, a, goodCert, goodKey, true)
	plain := startBroker(t, 0)
	ca := mqtt.TLS{CAFile: a.file}
	with := func(change func(*mqtt.TLS)) mqtt.TLS {
		c := ca
		change(&c)
		return c
	}
	const untrusted = "the broker's certificate is signed by an authority that is not trusted: set mqtt.tls.ca_file to that authority's certificate"
	for name, c := range map[string]struct {
		server string
		tls    mqtt.TLS
		want   string // "" connects
	}{
		"own authority":       {"mqtts://" + good.Addr(), ca, ""},
		"another authority":   {"mqtts://" + good.Addr(), mqtt.TLS{CAFile: other.file}, untrusted},
		"the system's":        {"mqtts://" + good.Addr(), mqtt.TLS{}, untrusted},
		"not checked":         {"mqtts://" + good.Addr(), mqtt.TLS{InsecureSkipVerify: true}, ""},
		"wrong host name":     {"mqtts://" + named.Addr(), ca, "the broker's certificate is not for 127.0.0.1: use the right name in mqtt.servers, or set mqtt.tls.server_name (cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs)"},
		"another server name": {"mqtts://" + named.Addr(), with(func(c *mqtt.TLS) { c.ServerName = "borker.example" }), "the broker's certificate is not for borker.example: use the right name in mqtt.servers, or set mqtt.tls.server_name (certificate is valid for broker.example, not borker.example)"},
		"server name":         {"mqtts://" + named.Addr(), with(func(c *mqtt.TLS) { c.ServerName = "broker.example" }), ""},
		"expired":             {"mqtts://" + old.Addr(), ca, fmt.Sprintf("the broker's certificate is not valid now (from %s to %s): renew it, or check this device's clock", time.Now().UTC().AddDate(-1, 0, 0).Format(time.DateOnly), yesterday.UTC().Format(time.DateOnly))},
		"client certificate":  {"mqtts://" + mutual.Addr(), with(func(c *mqtt.TLS) { c.CertFile, c.KeyFile = clientCert, clientKey }), ""},
		"no client certificate": {"mqtts://" + mutual.Addr(), ca,
			"the broker ends the TLS handshake (certificate required): if it wants a client certificate, set mqtt.tls.cert_file and key_file|" +
				"the broker closed the connection without an answer to CONNECT: if it wants a client certificate, set mqtt.tls.cert_file and key_file"},
		"another's client certificate": {"mqtts://" + mutual.Addr(), with(func(c *mqtt.TLS) { c.CertFile, c.KeyFile = otherCert, otherKey }),
			"the broker ends the TLS handshake (unknown certificate authority): it may not take the client certificate; check mqtt.tls.cert_file, and which authorities the broker trusts|" +
				"the broker closed the connection without an answer to CONNECT: it may not take the client certificate; check mqtt.tls.cert_file, and which authorities the broker trusts"},
		"key that all can read": {"mqtts://" + mutual.Addr(), with(func(c *mqtt.TLS) { c.CertFile, c.KeyFile = clientCert, openKey }),
			fmt.Sprintf("mqtt.tls.key_file: secret %s: mode 0644 lets others read or change it; run: chmod 640 %s", openKey, openKey)},
		"another's key":   {"mqtts://" + mutual.Addr(), with(func(c *mqtt.TLS) { c.CertFile, c.KeyFile = clientCert, otherKey }), "mqtt.tls.cert_file and key_file: tls: private key does not match public key"},
		"no authority":    {"mqtts://" + good.Addr(), mqtt.TLS{CAFile: "/nowhere.pem"}, "mqtt.tls.ca_file: open /nowhere.pem: no such file or directory"},
		"a key as the CA": {"mqtts://" + good.Addr(), mqtt.TLS{CAFile: goodKey}, "mqtt.tls.ca_file: " + goodKey + " holds no PEM certificate"},
		"TLS to plain":    {"mqtts://" + plain.Addr(), ca, "the broker closed the connection during the TLS handshake: does it speak TLS on this port?"},
		"plain to TLS":    {"mqtt://" + good.Addr(), ca, "the broker closed the connection without an answer to CONNECT: wrong port, or refused by its access rules"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(c.server, "3.1.1")
			cfg.ClientID, cfg.TLS = "dev-"+fmt.Sprint(time.Now().UnixNano()), c.tls
			client := run(t, cfg, nil)
			if c.want == "" {
				roundTrip(t, client.connected(t))
				return
			}
			client.fails(t, c.want)
		})
	}
}

// fails waits until the client has failed with these words, and has tried again with no more lines than one. A bar stands between two that
// mean the same: an alert can be lost when the connection is reset behind it.
func (c *client) fails(t *testing.T, want string) {
	t.Helper()
	c.await(t, "a line for the failure", func(lines []string) bool { return len(lines) > 0 })
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for timeout := time.After(patience); c.State().Attempts < 4; {
		select {
		case <-tick.C:
		case s := <-c.up:
			t.Fatalf("connected to %s", s.Server())
		case <-timeout:
			t.Fatalf("not tried again: %+v", c.State())
		}
	}
	c.await(t, "the words", func(lines []string) bool {
		words := strings.TrimPrefix(lines[0], "no connection to the broker, will be tried again: ")
		if !slices.Contains(strings.Split(want, "|"), words) {
			t.Errorf("the log says\n%s\nwant\n%s", words, want)
		}
		if n := count(lines, lines[0]); n > 1 && !strings.Contains(want, "|") {
			t.Errorf("%d equal lines for %d attempts", n, c.State().Attempts)
		}
		return true
	})
}

// insecure_skip_verify takes any certificate, and warns at each connect.
func TestInsecureWarnsEachTime(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue("old", time.Now().AddDate(0, 0, -1), "elsewhere.example")
	b := tlsBroker(t, a, cert, key, false)
	cfg := config("mqtts://"+b.Addr(), "3.1.1")
	cfg.TLS = mqtt.TLS{InsecureSkipVerify: true}
	c := run(t, cfg, nil)
	const warning = "the broker's certificate is not checked: whoever is on the path can read and change everything"
	for n := 1; n <= 3; n++ {
		s := c.connected(t)
		c.await(t, "a warning", func(lines []string) bool { return count(lines, warning) >= n })
		s.Close(fmt.Errorf("cut by the test"))
	}
}

// The password is read anew at each connect: a wrong one is one line, the right one heals without a restart.
func TestPassword(t *testing.T) {
	dir := t.TempDir()
	users, password := filepath.Join(dir, "users"), filepath.Join(dir, "password")
	if out, err := exec.Command("mosquitto_passwd", "-b", "-c", users, "me", "right one").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b := startBroker(t, 0, "allow_anonymous false", "password_file "+users)
	if err := os.WriteFile(password, []byte("wrong one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := config("mqtt://"+b.Addr(), "3.1.1")
	cfg.Username, cfg.PasswordFile = "me", password
	c := run(t, cfg, nil)
	c.fails(t, "not authorised: check mqtt.username, mqtt.password_file and the broker's access list")
	if err := os.WriteFile(password, []byte("right one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	roundTrip(t, c.connected(t))
	c.stop()
	cfg.PasswordFile = filepath.Join(dir, "none")
	run(t, cfg, nil).fails(t, fmt.Sprintf("mqtt.password_file: secret: open %s: no such file or directory; the agent's user must be able to read it", cfg.PasswordFile))
}
