package remote

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"fieldagent/integration/broker"
	"fieldagent/integration/device"
)

var built struct {
	once    sync.Once
	program string
	err     error
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "remote")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

var scratch string

// program builds the agent with its fault points, once.
func program(t *testing.T) string {
	t.Helper()
	built.once.Do(func() { built.program, built.err = device.Build(scratch) })
	must(t, built.err)
	return built.program
}

const (
	within   = 5 * time.Second // confirm_within of the processes
	patience = 60 * time.Second
)

// site is mosquitto, one unit as a process, and somebody far away.
type site struct {
	t    *testing.T
	addr string
	d    *device.Device
	far  paho.Client

	mu   sync.Mutex
	last map[string]string
	news chan struct{}
}

func newSite(t *testing.T, version string, lines ...string) *site {
	t.Helper()
	b, err := broker.Start("mosquitto", t.TempDir(), broker.Options{Lines: lines})
	must(t, err)
	t.Cleanup(func() { _ = b.Close() })
	dir, err := os.MkdirTemp(scratch, "d")
	must(t, err)
	s := &site{t: t, addr: b.Addr(), last: map[string]string{}, news: make(chan struct{})}
	s.d, err = device.New(program(t), dir, fmt.Sprintf(`device: {id: pump-7}
mqtt:
  version: "%s"
  servers: ["mqtt://%s"]
  keepalive: 50s
  connect_timeout: 3s
  reconnect: {min: 100ms, max: 1s}
sensors:
  - {name: before, driver: simulated, every: 1s}
config: {confirm_within: %v, spread: 1s}
`, version, s.addr, within))
	must(t, err)
	t.Cleanup(func() {
		s.d.Stop()
		if t.Failed() {
			log, _ := os.ReadFile(s.d.Log())
			t.Logf("%s", log)
		}
	})
	o := paho.NewClientOptions().AddBroker("tcp://" + s.addr).SetClientID("pump-far-away").SetProtocolVersion(4).SetOrderMatters(true)
	o.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.last[m.Topic()] = string(m.Payload())
		close(s.news)
		s.news = make(chan struct{})
	})
	s.far = paho.NewClient(o)
	s.done(s.far.Connect())
	s.done(s.far.Subscribe(root+"/#", 1, nil))
	t.Cleanup(func() { s.far.Disconnect(100) })
	return s
}

func (s *site) done(token paho.Token) {
	s.t.Helper()
	if !token.WaitTimeout(patience) {
		s.t.Fatal("mosquitto does not answer")
	}
	must(s.t, token.Error())
}

func (s *site) publish(topic, payload string, retained bool) {
	s.t.Helper()
	s.done(s.far.Publish(topic, 1, retained, payload))
}

// wait returns the first message on a topic, of those that are kept or come, that ok says yes to. again, if there is one, is called every second.
func (s *site) wait(what, topic string, ok func(string) bool, again ...func()) string {
	s.t.Helper()
	late, tick := time.After(patience), time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		s.mu.Lock()
		text, news := s.last[topic], s.news
		s.mu.Unlock()
		if ok(text) {
			return text
		}
		select {
		case <-news:
		case <-tick.C:
			for _, fn := range again {
				fn()
			}
		case <-late:
			s.t.Fatalf("%s: not within %v; the last message on %s is %.500s", what, patience, topic, text)
		}
	}
}

// reachable asks until there is an answer: one id is executed once, however often it is sent, and a unit that has never subscribed has no session yet.
func (s *site) reachable(id string) {
	s.t.Helper()
	ask := func() { s.publish(root+"/cmd/ping", fmt.Sprintf(`{"id":%q}`, id), false) }
	ask()
	s.wait("an answer to ping", root+"/cmd/ping/result", func(m string) bool { return strings.Contains(m, `{"id":"`+id+`","status":"ok"`) }, ask)
}

func (s *site) outcome(doc string) state {
	s.t.Helper()
	return parseState(s.wait("an end of the change", root+"/config/state", func(m string) bool {
		x := parseState(m)
		return x.Last != nil && x.Last.Hash == hashOf(doc) && x.Last.Result != "pending"
	}))
}

// whole fails unless what is in force is the local configuration or doc, and nothing in between.
func (s *site) whole(changed bool) {
	s.t.Helper()
	sensor, keepalive := "before", "50s"
	if changed {
		sensor, keepalive = "after", "45s"
	}
	s.wait("one of the two configurations, whole", root+"/config/current", func(m string) bool {
		return strings.Contains(m, "name: "+sensor) && strings.Contains(m, "keepalive: "+keepalive) && strings.Count(m, "driver: simulated") == 1
	})
	s.wait("a reading", root+"/sensor/"+sensor, func(m string) bool { return m != "" })
}

const changed = `{"mqtt":{"keepalive":"45s"},"sensors":[{"name":"after","driver":"simulated","every":"1s"}]}`

// TestKilledDuringAChange kills the unit with SIGKILL at each point of a change of configuration.
func TestKilledDuringAChange(t *testing.T) {
	refused := `{"mqtt":{"keepalive":"45s","client_id":"stranger"},"sensors":[{"name":"after","driver":"simulated","every":"1s"}]}`
	for _, c := range []struct {
		point, doc string
		version    string
	}{
		{"config received:1", changed, "3.1.1"}, {"config trial:1", changed, "3.1.1"}, {"config probed:1", changed, "3.1.1"}, {"config half applied:1", changed, "3.1.1"}, {"config client stopped:2", changed, "3.1.1"},
		{"config applied:1", changed, "3.1.1"}, {"config acknowledged:1", changed, "3.1.1"}, {"config confirmed:1", changed, "3.1.1"}, {"config settled:1", changed, "3.1.1"},
		{"config applied:1", refused, "3.1.1"}, {"config unconfirmed:1", refused, "3.1.1"}, {"config half applied:2", refused, "3.1.1"}, {"config restored:1", refused, "3.1.1"}, {"config settled:1", refused, "3.1.1"},
		{"config probed:1", changed, "5"}, {"config acknowledged:1", changed, "5"}, {"config applied:1", refused, "5"}, {"config unconfirmed:1", refused, "5"},
	} {
		kind := "good"
		if c.doc == refused {
			kind = "refused"
		}
		t.Run(kind+" "+c.point+" MQTT "+c.version, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, c.version, "clientid_prefixes pump")
			must(t, s.d.Start(c.point))
			s.whole(false)
			s.reachable("first")
			s.publish(root+"/config/set", c.doc, false)
			select {
			case <-s.d.Died():
			case <-time.After(patience):
				t.Fatalf("the unit was not killed at %s", c.point)
			}
			must(t, s.d.Start(""))
			s.reachable("second")
			end := s.outcome(c.doc)
			s.whole(end.Last.Result == "applied")
			if (end.Last.Result == "applied") != (end.Applied.Hash == hashOf(c.doc)) || end.Last.Result != "applied" && len(end.Last.Errors) == 0 {
				t.Errorf("%+v", end)
			}
			if end.Last.Result == "applied" && c.doc == refused {
				t.Errorf("a configuration that nothing confirmed is in force: %+v", end)
			}
			// And it works at the next attempt: nothing is stuck.
			s.publish(root+"/config/set", "", false)
			again := strings.Replace(changed, "{", "{ ", 1)
			s.publish(root+"/config/set", again, false)
			if end := s.outcome(again); end.Last.Result != "applied" {
				t.Errorf("%+v", end.Last)
			}
			s.whole(true)
		})
	}
}

// TestCrashAtEachStart gives the unit a configuration with which it crashes, again and again.
func TestCrashAtEachStart(t *testing.T) {
	for _, retained := range []bool{false, true} {
		t.Run(fmt.Sprintf("on trial, retained %v", retained), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "3.1.1")
			must(t, s.d.Start("config applied:1"))
			s.reachable("first")
			s.publish(root+"/config/set", changed, retained)
			deaths := 0
			for { // its supervisor starts it again
				select {
				case <-s.d.Died():
					deaths++
				case <-time.After(within + 5*time.Second): // it has stayed up for longer than a trial takes
					goto alive
				}
				if deaths > 4 {
					t.Fatal("it crashes for ever")
				}
				must(t, s.d.Start("config applied:1"))
			}
		alive:
			s.reachable("alive")
			s.whole(false)
			if end := s.outcome(changed); end.Last.Result != "rolled_back" || !strings.Contains(end.Last.Errors[0], "ended before") || end.Applied.Source != "local" {
				t.Errorf("%+v", end)
			}
			if want := map[bool]int{false: 1, true: 2}[retained]; deaths != want {
				t.Errorf("%d crashes, want %d", deaths, want)
			}
		})
	}
	t.Run("confirmed before", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, "3.1.1")
		must(t, s.d.Start(""))
		s.reachable("first")
		s.publish(root+"/config/set", changed, false)
		if end := s.outcome(changed); end.Last.Result != "applied" {
			t.Fatalf("%+v", end)
		}
		s.d.Kill() // 1: a power cut, or whatever it was
		for range 3 {
			must(t, s.d.Start("config client stopped:1")) // while it puts the confirmed configuration in force
			<-s.d.Died()
		}
		must(t, s.d.Start(""))
		s.reachable("back")
		end := parseState(s.wait("the reason", root+"/config/state", func(m string) bool { return strings.Contains(m, "times in a row") }))
		if end.Applied.Source != "local" || end.Last.Result != "rolled_back" {
			t.Errorf("%+v", end)
		}
		s.whole(false)
	})
}

// TestSample sends some of the wrong configurations in real time to the built binary at mosquitto, and then a good one.
func TestSample(t *testing.T) {
	for _, version := range versions {
		t.Run("MQTT "+version, func(t *testing.T) {
			t.Parallel()
			sample(t, version)
		})
	}
}

func sample(t *testing.T, version string) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { silent.Close() })
	port, err := broker.FreePort()
	must(t, err)
	s := newSite(t, version, "clientid_prefixes pump")
	must(t, s.d.Start(""))
	s.reachable("first")
	for i, c := range []struct{ kind, doc, result, why string }{
		{"wrong port", fmt.Sprintf(`mqtt: {servers: ["mqtt://127.0.0.1:%d"]}`, port), "rolled_back", "connection refused"},
		{"black hole", fmt.Sprintf(`mqtt: {servers: ["mqtt://%s"]}`, silent.Addr()), "rolled_back", "no answer"},
		{"no TLS there", fmt.Sprintf(`mqtt: {servers: ["mqtts://%s"]}`, s.addr), "rolled_back", "TLS"},
		{"garbage", "\xff\xfe\x00", "rejected", "UTF-8"},
		{"too large", "# " + strings.Repeat("x", 70<<10), "rejected", "71682 bytes long, the limit is 65536"},
		{"far too large", "# " + strings.Repeat("x", 300<<10), "rejected", "131040 bytes long, the limit is 65536"},
		{"cut off", "sensors: [{name: x, driver: simu", "rejected", "config/set:1"},
		{"local key", "commands: [{name: rm, argv: [/bin/rm]}]", "rejected", "local file"},
		{"stranger", "mqtt: {client_id: stranger}", "rolled_back", "no acknowledged round trip through the broker"},
	} {
		if c.kind == "far too large" && version == "5" {
			continue // the broker was told of the largest packet, and drops it
		}
		start := time.Now()
		s.publish(root+"/config/set", c.doc, i%2 == 0)
		end := parseState(s.wait(c.kind, root+"/config/state", func(m string) bool {
			x := parseState(m)
			return x.Last != nil && x.Last.Result == c.result && strings.Contains(strings.Join(x.Last.Errors, "\n"), c.why)
		}))
		s.reachable(fmt.Sprint("after-", i))
		if took := time.Since(start); took > within+30*time.Second {
			t.Errorf("%s: reachable after %v", c.kind, took)
		}
		if end.Applied.Source != "local" {
			t.Errorf("%s: %+v", c.kind, end)
		}
		t.Logf("%s: %s after %v: %.120s", c.kind, end.Last.Result, time.Since(start).Round(100*time.Millisecond), end.Last.Errors[0])
		s.whole(false)
	}
	s.publish(root+"/config/set", changed, false)
	if end := s.outcome(changed); end.Last.Result != "applied" {
		t.Errorf("%+v", end)
	}
	s.whole(true)
}
