package remote

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const confirmWithin = 2 * time.Minute

// document is one wrong or hostile configuration.
type document struct {
	kind    string
	body    string
	result  string   // what config/state must say
	why     []string // each must be part of one of its errors
	touches bool     // may give up the running connection: the broker answers, and refuses
}

// wrong returns n documents, every kind in turn, with details drawn from r. Each body is different.
func wrong(r *rand.Rand, n int, version string) (out []document) {
	kinds := []func(i int) document{
		func(i int) document {
			return document{"garbage", string(noise(r, 1+r.IntN(3000))), "rejected", nil, false}
		},
		func(i int) document {
			whole := fmt.Sprintf("sensors:\n  - {name: s%d, driver: simulated, every: 10s}\n  - {name: t%d, driver: [", i, i)
			return document{"cut off", whole[:len(whole)-r.IntN(4)-1], "rejected", []string{"config/set:"}, false}
		},
		func(i int) document {
			return document{"too large", "# " + strings.Repeat("x", 65<<10+r.IntN(20000)), "rejected", []string{"the limit is 65536"}, false}
		},
		func(i int) document {
			depth := 30 + r.IntN(2000)
			return document{"deep", fmt.Sprintf("# %d\nsensors: ", i) + strings.Repeat("[", depth) + strings.Repeat("]", depth), "rejected", nil, false}
		},
		func(i int) document {
			var b strings.Builder
			fmt.Fprintf(&b, "# %d\na0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n", i)
			for k := range 9 + r.IntN(20) {
				fmt.Fprintf(&b, "a%d: &a%d [%s]\n", k+1, k+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", k), 9), ", "))
			}
			return document{"anchor bomb", b.String(), "rejected", []string{"anchors"}, false}
		},
		func(i int) document {
			return document{"unknown key", fmt.Sprintf("mqtt: {keepalvie: %ds}", 10+i), "rejected", []string{"keepalive"}, false}
		},
		func(i int) document {
			return document{"wrong type", fmt.Sprintf("mqtt: {keepalive: [%d]}\nsensors: {name: x}\nhome_assistant: {discovery: perhaps}", i), "rejected", []string{"mqtt.keepalive", "sensors", "discovery"}, false}
		},
		func(i int) document {
			keys := []string{"device: {id: other-%d}", "commands: [{name: rm%d, argv: [/bin/rm]}]", "config: {confirm_within: %ds, remote: true}", "outbox: {max_size: %dMiB}",
				"mqtt: {password_file: /etc/passwd%d}", "mqtt: {tls: {insecure_skip_verify: true}} # %d", "mqtt: {tls: {ca_file: /tmp/ca-%d.pem}}", "mqtt: {tls: {cert_file: /tmp/c%d, key_file: /tmp/k}}",
				"mqtt: {prefix: evil%d}", "mqtt: {allow_downgrade: true} # %d", "sensors: [{name: d, driver: host, disk: /root/%d}]"}
			return document{"local key", fmt.Sprintf(keys[r.IntN(len(keys))], 30+i), "rejected", []string{"can only be set in the local file"}, false}
		},
		func(i int) document {
			scheme := []string{"mqtt", "ws", "tcp"}[r.IntN(3)]
			return document{"in the clear", fmt.Sprintf("# %d\nmqtt: {servers: [\"mqtts://broker.test:8883\", \"%s://broker.test:1883\"]}", i, scheme), "rejected", []string{"TLS cannot be weakened"}, false}
		},
		func(i int) document {
			return document{"no such driver", fmt.Sprintf("sensors: [{name: s, driver: bme%d}]", 281+i), "rejected", []string{"unknown driver"}, false}
		},
		func(i int) document {
			return document{"clash", fmt.Sprintf("sensors: [{name: s%d, driver: simulated}, {name: s%d, driver: simulated}]", i, i), "rejected", []string{"is the name of"}, false}
		},
		func(i int) document {
			return document{"two documents", fmt.Sprintf("sensors: []\n---\nsensors: [{name: s%d, driver: simulated}]", i), "rejected", []string{"second document"}, false}
		},
		func(i int) document {
			return document{"lines without a board", fmt.Sprintf("outputs: [{name: relay, line: GPIO%d}]", i%28), "rejected", []string{"GPIO"}, false}
		},
		func(i int) document {
			return document{"wrong name", fmt.Sprintf("mqtt: {servers: [\"mqtts://nobody-%d.test:8883\"]}", i), "rolled_back", []string{"cannot be looked up"}, false}
		},
		func(i int) document {
			return document{"wrong port", fmt.Sprintf("mqtt: {servers: [\"mqtts://broker.test:%d\"]}", 9000+i), "rolled_back", []string{"connection refused"}, false}
		},
		func(i int) document {
			return document{"black hole", fmt.Sprintf("# %d\nmqtt: {servers: [\"mqtts://hole.test:8883\"]}", i), "rolled_back", []string{"no answer"}, false}
		},
		func(i int) document {
			return document{"bad authority", fmt.Sprintf("# %d\nmqtt: {servers: [\"mqtts://foreign.test:8883\"]}", i), "rolled_back", []string{"authority"}, false}
		},
		func(i int) document {
			return document{"bad name", fmt.Sprintf("mqtt: {tls: {server_name: other-%d.test}}", i), "rolled_back", []string{"certificate is not for"}, false}
		},
		func(i int) document {
			return document{"no broker", fmt.Sprintf("# %d\nmqtt: {servers: [\"mqtts://web.test:443\"]}", i), "rolled_back", []string{"TLS"}, false}
		},
		func(i int) document {
			return document{"wrong user", fmt.Sprintf("mqtt: {username: stranger-%d}", i), "rolled_back", []string{unknownUser[version]}, true}
		},
		func(i int) document {
			return document{"refused subscriptions", fmt.Sprintf("# %d\nmqtt: {servers: [\"mqtts://strict.test:8883\"]}", i), "rolled_back", []string{"refused", "cmd/+"}, false}
		},
		func(i int) document {
			return document{"refused report", fmt.Sprintf("# %d\nmqtt: {servers: [\"mqtts://mute.test:8883\"]}", i), "rolled_back", nil, false}
		},
		func(i int) document {
			return document{"will with wildcards", fmt.Sprintf("mqtt: {will: {topic: \"a/#/%d\"}}", i), "rejected", []string{"wildcards"}, false}
		},
		func(i int) document {
			return document{"a bad one among good ones", fmt.Sprintf("sensors: [{name: a, driver: simulated, every: 1s}, {name: b, driver: simulated, every: 1y%d}]", i), "rejected", []string{"duration"}, false}
		},
	}
	for i := range n {
		out = append(out, kinds[i%len(kinds)](i))
	}
	return out
}

// noise is bytes that are no configuration: the first one is never part of UTF-8.
func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.UintN(256))
	}
	b[0] = 0xff
	return b
}

// TestHostileConfigurations sends 200 wrong or hostile configurations. After each the unit is reachable with its last good one within
// confirm_within + 30 s, and config/state says why.
func TestHostileConfigurations(t *testing.T) {
	const n, seed = 200, 5
	bubble(t, func(t *testing.T, w *world) {
		ca, foreign := newAuthority(t), newAuthority(t)
		must(t, os.WriteFile(filepath.Join(w.dir, "ca.pem"), ca.pem, 0o644))
		home := w.broker("broker.test:8883", func(h *host) { h.cert, h.user = ca.server(t, "broker.test"), "pump-7" })
		w.broker("foreign.test:8883", func(h *host) { h.cert = foreign.server(t, "foreign.test") })
		w.broker("strict.test:8883", func(h *host) { h.cert, h.refuse = ca.server(t, "strict.test"), "cmd/+" })
		w.broker("mute.test:8883", func(h *host) { h.cert, h.mute = ca.server(t, "mute.test"), "config/state" })
		w.faults["hole.test:8883"] = hole
		w.faults["web.test:443"] = says("HTTP/1.1 400 Bad Request\r\n\r\n")
		u := w.start(w.local(""))
		defer u.stop()
		home.wait(t, "the first state", time.Minute, root+"/config/state", func(s string) bool { return parseState(s).Applied.Source == "local" })
		u.listens(t)
		home.wait(t, "a reading", time.Minute, root+"/sensor/tank", func(string) bool { return true })
		good, began := parseState(home.got[root+"/config/state"][0]).Applied, time.Now()
		kinds := map[string]int{}
		for i, d := range wrong(rand.New(rand.NewPCG(seed, seed)), n, w.version) {
			if i%20 == 10 { // the last good configuration is not always the same one
				good.Source, good.Hash = "remote", goodOne(t, home, i)
			}
			kinds[d.kind]++
			before, start := home.connected(), time.Now()
			must(t, home.srv.Publish(root+"/config/set", []byte(d.body), false, 1))
			text := home.wait(t, fmt.Sprintf("%d, %s: an end", i, d.kind), confirmWithin+30*time.Second, root+"/config/state", func(s string) bool {
				x := parseState(s)
				return x.Last != nil && x.Last.Hash == hashOf(d.body) && x.Last.Result != "pending"
			})
			s := parseState(text)
			if s.Last.Result != d.result || len(s.Last.Errors) == 0 {
				t.Errorf("%d, %s: %s", i, d.kind, text)
			}
			for _, why := range d.why {
				if !strings.Contains(strings.Join(s.Last.Errors, "\n"), why) {
					t.Errorf("%d, %s: %q is not said: %q", i, d.kind, why, s.Last.Errors)
				}
			}
			if s.Applied.Hash != good.Hash || s.Applied.Source != good.Source {
				t.Errorf("%d, %s: in force is %+v, not %+v", i, d.kind, s.Applied, good)
			}
			ping(t, home, fmt.Sprint("after-", i))
			if took := time.Since(start); took > confirmWithin+30*time.Second {
				t.Errorf("%d, %s: reachable after %v", i, d.kind, took)
			}
			if now := home.connected(); now != before && !d.touches {
				t.Errorf("%d, %s: the running connection was given up %d times", i, d.kind, now-before)
			}
			if t.Failed() {
				t.Fatalf("seed %d, document %d:\n%.500s", seed, i, d.body)
			}
		}
		t.Logf("%d documents of %d kinds in %v of virtual time", n, len(kinds), time.Since(began).Round(time.Second))
	})
}

// goodOne sends a configuration that is all right and returns its hash.
func goodOne(t *testing.T, h *host, i int) string {
	t.Helper()
	doc := fmt.Sprintf("sensors: [{name: tank, driver: simulated, every: %ds}]", 5+i)
	must(t, h.srv.Publish(root+"/config/set", []byte(doc), false, 1))
	applied(t, h, doc)
	return hashOf(doc)
}

func applied(t *testing.T, h *host, doc string) {
	t.Helper()
	h.wait(t, "applied", confirmWithin, root+"/config/state", func(s string) bool {
		x := parseState(s)
		return x.Last != nil && x.Last.Hash == hashOf(doc) && x.Last.Result == "applied"
	})
}

// ping asks for a sign of life.
func ping(t *testing.T, h *host, id string) {
	t.Helper()
	must(t, h.srv.Publish(root+"/cmd/ping", fmt.Appendf(nil, `{"id":%q}`, id), false, 2))
	h.wait(t, "an answer to ping", 30*time.Second, root+"/cmd/ping/result", func(s string) bool {
		var e struct {
			Data struct{ ID, Status string }
		}
		return json.Unmarshal([]byte(s), &e) == nil && e.Data.ID == id && e.Data.Status == "ok"
	})
}
