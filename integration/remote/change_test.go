package remote

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// secure starts a unit with an encrypted broker that answers.
func secure(t *testing.T, w *world, ca *authority, more string) (*host, *unit) {
	must(t, os.WriteFile(filepath.Join(w.dir, "ca.pem"), ca.pem, 0o644))
	home := w.broker("broker.test:8883", func(h *host) { h.cert = ca.server(t, "broker.test") })
	u := w.start(w.local(more))
	home.wait(t, "the first state", time.Minute, root+"/config/state", func(s string) bool { return parseState(s).Applied.Source == "local" })
	u.listens(t)
	ping(t, home, "hello")
	return home, u
}

func settled(t *testing.T, h *host, doc, result string) state {
	t.Helper()
	return parseState(h.wait(t, result, confirmWithin+30*time.Second, root+"/config/state", func(s string) bool {
		x := parseState(s)
		return x.Last != nil && x.Last.Hash == hashOf(doc) && x.Last.Result == result
	}))
}

// TestMove takes the unit to another broker and back: the running connection stays until the new one has done its round trip.
func TestMove(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ca := newAuthority(t)
		next := w.broker("next.test:8883", func(h *host) { h.cert = ca.server(t, "next.test") })
		// These know the device by its client id, so they refuse the trial beside the running connection.
		shy := w.broker("shy.test:8883", func(h *host) { h.cert, h.noSecond = ca.server(t, "shy.test"), true })
		home, u := secure(t, w, ca, "")
		defer u.stop()
		move := func(from, to *host, server string) string {
			doc := `mqtt: {servers: ["mqtts://` + server + `:8883"]}`
			if server == "broker.test" {
				doc = ""
			}
			must(t, from.srv.Publish(root+"/config/set", []byte(doc), false, 1))
			settled(t, to, doc, "applied")
			ping(t, to, "at-"+server+time.Now().String())
			from.wait(t, "a goodbye at the old broker", time.Minute, root+"/status", func(s string) bool { return s == "offline" })
			return doc
		}
		move(home, next, "next.test")
		move(next, shy, "shy.test")
		move(shy, home, "broker.test")
		if n := next.connected(); n != 1 {
			t.Errorf("%d connections to the new broker", n)
		}
		if s := u.Status().Config; s.Applied.Source != "local" {
			t.Errorf("%+v", s)
		}
	})
}

// unknownUser is how each version says it.
var unknownUser = map[string]string{"3.1.1": "not authorised", "5": "bad user name or password"}

// TestFalseFriend meets a broker that takes the trial but never the device itself.
func TestFalseFriend(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ca := newAuthority(t)
		w.broker("false.test:8883", func(h *host) { h.cert, h.onlyTrials = ca.server(t, "false.test"), true })
		home, u := secure(t, w, ca, "")
		defer u.stop()
		doc := `mqtt: {servers: ["mqtts://false.test:8883"]}`
		start := time.Now()
		must(t, home.srv.Publish(root+"/config/set", []byte(doc), false, 1))
		s := settled(t, home, doc, "rolled_back")
		if len(s.Last.Errors) != 1 || !strings.Contains(s.Last.Errors[0], unknownUser[w.version]) {
			t.Errorf("%+v", s.Last)
		}
		ping(t, home, "back")
		if took := time.Since(start); took > confirmWithin+30*time.Second {
			t.Errorf("reachable after %v", took)
		}
	})
}

// TestMute meets a broker that takes the device, its subscriptions and its trial, but not its report: that is no acknowledged round trip.
func TestMute(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ca := newAuthority(t)
		w.broker("mute.test:8883", func(h *host) { h.cert, h.mute = ca.server(t, "mute.test"), "config/state" })
		home, u := secure(t, w, ca, "")
		defer u.stop()
		doc := `mqtt: {servers: ["mqtts://mute.test:8883"]}`
		must(t, home.srv.Publish(root+"/config/set", []byte(doc), false, 1))
		s := settled(t, home, doc, "rolled_back")
		if w.version == "5" && (len(s.Last.Errors) != 1 || !strings.Contains(s.Last.Errors[0], "mute.test:8883 refuses messages on fieldagent/pump-7/config/state: not authorized")) {
			t.Errorf("%+v", s.Last)
		}
		// At home, where the trial beside it succeeds, the broker has changed its mind when the device itself reports.
		home.silence("config/state")
		doc = "sensors: [{name: other, driver: simulated, every: 10s}]"
		must(t, home.srv.Publish(root+"/config/set", []byte(doc), false, 1))
		<-time.After(confirmWithin + time.Minute)
		home.silence("")
		if w.version == "5" { // the connection has held; the report is due again with the next one
			cut(t, home)
		}
		s = settled(t, home, doc, "rolled_back")
		if w.version == "5" && !strings.Contains(s.Last.Errors[0], "broker.test:8883 refuses messages") {
			t.Errorf("%+v", s.Last)
		}
		ping(t, home, "back")
	})
}

// TestBurst sends documents faster than they can be tried: the last one is in force in the end, and said to be.
func TestBurst(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		home, u := secure(t, w, newAuthority(t), "")
		defer u.stop()
		for i := range 40 {
			last := ""
			for k := range 2 + i%3 {
				last = fmt.Sprintf("sensors: [{name: s%d-%d, driver: simulated, every: 60s}]", i, k)
				must(t, home.srv.Publish(root+"/config/set", []byte(last), false, 1))
				<-time.After(time.Duration(i) * 100 * time.Microsecond)
			}
			settled(t, home, last, "applied")
			<-time.After(10 * time.Second)
			got := home.newest(root + "/config/state")
			if s := parseState(got); s.Applied.Hash != hashOf(last) || s.Last.Result != "applied" {
				t.Fatalf("round %d: %s", i, got)
			}
		}
	})
}

// TestMovedAnnouncement shows that entities follow when the prefix of their announcement changes.
func TestMovedAnnouncement(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		home, u := secure(t, w, newAuthority(t), "")
		defer u.stop()
		for _, prefix := range []string{"homeassistant", "ha2", "homeassistant"} {
			topic := prefix + "/device/pump-7/config"
			home.forget(topic)
			must(t, home.srv.Publish(root+"/config/set", []byte("home_assistant: {discovery: true, prefix: "+prefix+"}"), false, 1))
			home.wait(t, "the announcement below "+prefix, time.Minute, topic, func(s string) bool { return strings.Contains(s, "tank") })
		}
	})
}

// TestRetained shows that a bad retained document is tried once, and what an empty one does.
func TestRetained(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		home, u := secure(t, w, newAuthority(t), "")
		defer u.stop()
		bad, good := "mqtt: {servers: [\"mqtts://nobody.test:1\"]}", "mqtt: {keepalive: 20s}\nhome_assistant: {discovery: true}\n"
		must(t, home.srv.Publish(root+"/config/set", []byte(bad), true, 1))
		settled(t, home, bad, "rolled_back")
		revision := u.Status().Config.LastAttempt.Revision
		for range 3 { // the broker sends it again on each connect
			cut(t, home)
		}
		if now := u.Status().Config.LastAttempt; now.Revision != revision || now.Result != "rolled_back" {
			t.Errorf("tried again: %+v", now)
		}
		must(t, home.srv.Publish(root+"/config/set", []byte(good), true, 1))
		settled(t, home, good, "applied")
		cut(t, home)
		if now := u.Status().Config; now.LastAttempt.Revision != revision+1 || now.Applied.Hash != hashOf(good) {
			t.Errorf("a good one was tried again: %+v", now)
		}
		current := home.wait(t, "the effective configuration", time.Minute, root+"/config/current", func(s string) bool { return strings.Contains(s, "keepalive: 20s") })
		for _, kept := range []string{"ca.pem", "mqtts://broker.test:8883", "name: tank", "discovery: true"} {
			if !strings.Contains(current, kept) {
				t.Errorf("%s is lost: keys are merged, what is not named stays\n%s", kept, current)
			}
		}
		must(t, home.srv.Publish(root+"/config/set", nil, true, 1))
		settled(t, home, "", "applied")
		if now := u.Status().Config.Applied; now.Source != "local" {
			t.Errorf("%+v", now)
		}
	})
}

// cut ends the device's connection at the broker and waits for the next one.
func cut(t *testing.T, h *host) {
	t.Helper()
	before := h.connected()
	c, ok := h.srv.Clients.Get("pump-7")
	if !ok {
		t.Fatal("not connected")
	}
	h.forget(root + "/status")
	c.Stop(nil)
	h.wait(t, "the next connection", time.Minute, root+"/status", func(s string) bool { return s == "online" && h.connected() > before })
	<-time.After(5 * time.Second) // retained messages arrive
}

// TestEmptySections shows that a section without keys takes nothing away: TLS least of all.
func TestEmptySections(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		home, u := secure(t, w, newAuthority(t), "")
		defer u.stop()
		for _, doc := range []string{"mqtt:\n", "mqtt: {tls: }\n", "mqtt: {tls: {}, keepalive: 25s}\n", `{"mqtt":{"tls":null}}`} {
			must(t, home.srv.Publish(root+"/config/set", []byte(doc), false, 1))
			settled(t, home, doc, "applied")
			if b, err := u.Effective(); err != nil || !strings.Contains(string(b), "ca.pem") {
				t.Errorf("%q: the authority is lost: %v\n%s", doc, err, b)
			}
		}
	})
}

func TestRollbackCommand(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		home, u := secure(t, w, newAuthority(t), "")
		defer u.stop()
		one, two := "sensors: [{name: one, driver: simulated, every: 1s}]", "sensors: [{name: two, driver: simulated, every: 1s}]"
		for _, doc := range []string{one, two} {
			must(t, home.srv.Publish(root+"/config/set", []byte(doc), true, 1))
			settled(t, home, doc, "applied")
		}
		must(t, home.srv.Publish(root+"/cmd/config-rollback", []byte(`{"id":"back"}`), false, 2))
		settled(t, home, one, "applied")
		home.forget(root + "/sensor/one")
		home.wait(t, "the old sensor", time.Minute, root+"/sensor/one", func(string) bool { return true })
		cut(t, home) // the retained copy of two comes again, and is not tried
		if now := u.Status().Config; now.Applied.Hash != hashOf(one) {
			t.Errorf("%+v", now)
		}
		res := home.wait(t, "the result", time.Minute, root+"/cmd/config-rollback/result", func(string) bool { return true })
		var e struct {
			Data struct {
				Status string
				Result struct{ Hash, State string }
			}
		}
		if err := json.Unmarshal([]byte(res), &e); err != nil || e.Data.Status != "ok" || e.Data.Result.Hash != hashOf(one) || e.Data.Result.State != "pending" {
			t.Errorf("%s", res)
		}
	})
}

// TestGroups configures the unit through its groups: at a moment of its own, with the same trial, and its own document goes first.
func TestGroups(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		home, u := secure(t, w, newAuthority(t), "")
		defer u.stop()
		everyone, north, own := "sensors: [{name: a, driver: simulated}]", "sensors: [{name: n, driver: simulated}]", "sensors: [{name: o, driver: simulated}]"
		start := time.Now()
		must(t, home.srv.Publish("fieldagent/all/config/set", []byte(everyone), true, 1))
		s := settled(t, home, everyone, "applied")
		if took := time.Since(start); took == 0 || took > 25*time.Second || s.Applied.Group != "all" {
			t.Errorf("applied after %v: %+v", took, s.Applied)
		}
		bad := "mqtt: {servers: [\"mqtts://nobody.test:1\"]}"
		must(t, home.srv.Publish("fieldagent/group/site-north/config/set", []byte(bad), false, 1))
		settled(t, home, bad, "rolled_back")
		must(t, home.srv.Publish("fieldagent/group/site-north/config/set", []byte(north), true, 1))
		if s := settled(t, home, north, "applied"); s.Applied.Group != "site-north" {
			t.Errorf("%+v", s.Applied)
		}
		must(t, home.srv.Publish(root+"/config/set", []byte(own), true, 1))
		settled(t, home, own, "applied")
		for range 2 { // all three arrive again, the device's own goes first
			cut(t, home)
			<-time.After(time.Minute)
			if now := u.Status().Config.Applied; now.Hash != hashOf(own) || now.Group != "" {
				t.Errorf("in force: %+v", now)
			}
		}
		must(t, home.srv.Publish(root+"/config/set", nil, true, 1)) // back to the local file, then to the group's
		settled(t, home, north, "applied")
		<-time.After(time.Minute)
		if now := u.Status().Config.Applied; now.Hash != hashOf(north) {
			t.Errorf("in force: %+v", now)
		}
	})
}
