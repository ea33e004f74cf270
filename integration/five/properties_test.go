package five

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fieldagent/agent"
	"fieldagent/integration/wire"
	"fieldagent/queue"
)

const five = "  version: \"5\"\n"

// Numbers of properties, MQTT 5.0 section 2.2.2.2.
const (
	format = iota + 1
	expiry
	contentType
	responseTopic  = 8
	correlation    = 9
	subscriptionID = 11
	sessionExpiry  = 17
	willDelay      = 24
	receiveMaximum = 33
	topicAlias     = 35
	user           = 38
	maxPacket      = 39
)

func value(p wire.Packet, id byte) string {
	if x := p.Get(id); x != nil {
		return string(x.Value)
	}
	return ""
}

func number(p wire.Packet, id byte) int {
	if x := p.Get(id); x != nil {
		return x.Number()
	}
	return -1
}

func users(p wire.Packet) (list []string) {
	for _, x := range p.Properties5() {
		if x.ID == user {
			list = append(list, x.Pair[0]+"="+x.Pair[1])
		}
	}
	return list
}

// Everything that POST /v1/events may ask for is on the wire, and mosquitto_sub, which is of others, reads the same.
func TestPostedProperties(t *testing.T) {
	b := mosquitto(t)
	sub := client(t, b, "mosquitto_sub", "-q", "2", "-t", "+/+/event/#", "-F", "SUB %t|%C|%D|%E|%F|%P|%R|%q")
	line := newTap(t, b.Addr())
	d := start(t, t.TempDir(), line.Addr().String(), five+`  properties:
    labels: true
    sequence: true
    user: {team: b}
    events: [{type: coin, may_expire: true}, {type: ask, response_topic: answers, content_type: text/x-ask, user: {k: v}}]
`, "", nil)
	id := d.stored(`{"type":"coin","qos":2,"data":{"n":1},"properties":{"contentType":"application/x-coin","payloadFormatIndicator":1,"messageExpiryInterval":600,
		"responseTopic":"coins/answer","correlationData":"AAH/","userProperties":[["a","1"],["a","2"]]}}`)
	if l := d.end(id); l.State != queue.StateAcked {
		t.Fatalf("%+v", l)
	}
	p := line.wait(t, 1, on("event/coin"))[0]
	if number(p, format) != 1 || value(p, contentType) != "application/x-coin" || value(p, responseTopic) != "coins/answer" || value(p, correlation) != "\x00\x01\xff" {
		t.Errorf("%+v", p.Properties5())
	}
	if e := number(p, expiry); e < 500 || e > 600 {
		t.Errorf("expires in %d s", e)
	}
	if want := []string{"a=1", "a=2", "id=" + id.String(), fmt.Sprintf("sequence=%016d", id.Sequence), "site=north", "team=b"}; !slices.Equal(users(p), want) {
		t.Errorf("user properties %q, want %q", users(p), want)
	}
	got := next(t, sub)
	want := fmt.Sprintf("SUB fieldagent/pump-7/event/coin|application/x-coin|\x00\x01\xff|%d|1|a:1 a:2 id:%s sequence:%016d site:north team:b|coins/answer|2", number(p, expiry), id, id.Sequence)
	if got = strings.ReplaceAll(got, "\ufffd", "\xff"); got != want {
		t.Errorf("mosquitto_sub reads\n%q, want\n%q", got, want)
	}
	d.end(d.stored(`{"type":"ask"}`))
	p = line.wait(t, 1, on("event/ask"))[0]
	if value(p, responseTopic) != "answers" || value(p, contentType) != "text/x-ask" || number(p, expiry) != -1 || !slices.Contains(users(p), "k=v") {
		t.Errorf("%+v", p.Properties5())
	}
	for body, want := range map[string]string{
		`{"type":"coin","properties":{"payloadFormatIndicator":2,"correlationData":"?","userProperties":{"a":1},"responseTopic":"a/#","x":1,"contentType":7,"messageExpiryInterval":0}}`: "properties.contentType properties.correlationData properties.messageExpiryInterval properties.payloadFormatIndicator properties.responseTopic properties.userProperties properties.x",
		`{"type":"door","properties":{"messageExpiryInterval":5}}`: `may_expire`,
	} {
		status, answer := d.post(body)
		text := fmt.Sprint(answer["errors"])
		for _, w := range strings.Fields(want) {
			if status != http.StatusBadRequest || !strings.Contains(text, w) {
				t.Errorf("%d %s: no %s", status, text, w)
			}
		}
	}
}

// The time in the outbox is taken off; what has no time left is a dead letter, if its type may expire at all.
func TestExpiry(t *testing.T) {
	b := mosquitto(t)
	line := newTap(t, b.Addr())
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	var offset atomic.Int64
	begin := time.Now()
	clock := func() queue.Stamp {
		up := time.Since(begin) + time.Duration(offset.Load())
		return queue.Stamp{Wall: begin.Add(up).UTC(), Clock: queue.ClockSynced, Boot: 7, Uptime: up}
	}
	d := start(t, t.TempDir(), line.Addr().String(), five+"  properties: {events: [{type: mortal, may_expire: true, expires_after: 90s}]}\n", "", func(o *agent.Options) { o.Clock = agent.NewClock(clock) })
	short := d.stored(`{"type":"mortal","properties":{"messageExpiryInterval":50}}`)
	long := d.stored(`{"type":"mortal","properties":{"messageExpiryInterval":1000}}`)
	usual := d.stored(`{"type":"mortal"}`)
	kept := d.stored(`{"type":"door"}`)
	offset.Store(int64(60 * time.Second))
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	if l := d.end(short); l.State != queue.StateDead || !strings.Contains(l.Reason, "expired") {
		t.Errorf("%+v", l)
	}
	for _, id := range []queue.ID{long, usual, kept} {
		if l := d.end(id); l.State != queue.StateAcked {
			t.Errorf("%+v", l)
		}
	}
	p := line.wait(t, 2, on("event/mortal"))
	if a, b := number(p[0], expiry), number(p[1], expiry); a > 940 || a < 800 || b > 30 || b < 1 {
		t.Errorf("%d and %d seconds left", a, b)
	}
	if p := line.wait(t, 1, on("event/door"))[0]; number(p, expiry) != -1 {
		t.Error("an event that may not expire does")
	}
}

// CloudEvents in binary mode: the payload is the data, everything else a user property (CloudEvents MQTT binding 1.0.2 section 3.1).
func TestBinaryMode(t *testing.T) {
	b := mosquitto(t)
	line := newTap(t, b.Addr())
	d := start(t, t.TempDir(), line.Addr().String(), five+"  properties: {cloudevents: binary}\n", "", nil)
	id := d.stored(`{"type":"door","qos":2,"data":{"open":true},"time":"2026-11-22T10:00:00Z"}`)
	d.end(id)
	p := line.wait(t, 1, on("event/door"))[0]
	if string(p.Payload5()) != `{"open":true}` || value(p, contentType) != "application/json" {
		t.Errorf("%q %q", p.Payload5(), value(p, contentType))
	}
	for _, want := range []string{"specversion=1.0", "source=fieldagent/pump-7", "type=door", "id=" + id.String(), "time=2026-11-22T10:00:00.000Z", fmt.Sprintf("sequence=%016d", id.Sequence)} {
		if !slices.Contains(users(p), want) {
			t.Errorf("no %s in %q", want, users(p))
		}
	}
}

// Readings get their topics replaced by numbers, anew on each connection; whoever subscribes sees the topic, and health says what it saved.
func TestTopicAlias(t *testing.T) {
	b := mosquitto(t)
	sub := client(t, b, "mosquitto_sub", "-t", "+/+/sensor/cabinet", "-F", "SUB %t|%A|%E")
	line := newTap(t, b.Addr())
	d := start(t, t.TempDir(), line.Addr().String(), five+"  properties: {readings: {expire: 20s}}\n", "sensors: [{name: cabinet, driver: simulated, every: 100ms}]\n", nil)
	readings := func(p wire.Packet) bool {
		return p.Type() == wire.PUBLISH && p.Get(topicAlias) != nil && p.Get(expiry) != nil
	}
	list := line.wait(t, 4, readings)
	for i, p := range list[:4] {
		if want := map[bool]string{true: "fieldagent/pump-7/sensor/cabinet"}[i == 0]; p.Topic() != want || number(p, topicAlias) != number(list[0], topicAlias) || number(p, expiry) != 20 {
			t.Errorf("reading %d on %q: %+v", i, p.Topic(), p.Properties5())
		}
	}
	for range 3 {
		if got := next(t, sub); !strings.HasPrefix(got, "SUB fieldagent/pump-7/sensor/cabinet|") {
			t.Errorf("mosquitto_sub reads %q", got)
		}
	}
	await(t, "bytes saved in health", func() bool {
		return d.Status().Broker.AliasSaved >= 3*int64(len("fieldagent/pump-7/sensor/cabinet")-3)-6
	})
	before := len(line.wait(t, 1, kind(wire.CONNECT)))
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	line.wait(t, before+1, kind(wire.CONNECT))
	await(t, "a reading with its topic on the new connection", func() bool {
		n := 0
		for _, p := range line.wait(t, 1, readings) {
			if p.Topic() != "" {
				n++
			}
		}
		return n >= 2
	})
}

// A client of MQTT 5 asks and is answered on its own topic with its own correlation data, with and without an id in JSON; the result's own topic has it too.
func TestRequestResponse(t *testing.T) {
	b := mosquitto(t)
	sub := client(t, b, "mosquitto_sub", "-q", "1", "-t", "replies/#", "-F", "SUB %t|%D|%p")
	line := newTap(t, b.Addr())
	d := start(t, t.TempDir(), line.Addr().String(), five, "", nil)
	await(t, "the subscription", func() bool { s := d.Status().Broker; return s.Connected && s.Error == "" })
	ask := func(qos, corr, payload string, more ...string) {
		args := []string{"-q", qos, "-t", "fieldagent/pump-7/cmd/ping", "-m", payload, "-D", "publish", "response-topic", "replies/me"}
		if corr != "" {
			args = append(args, "-D", "publish", "correlation-data", corr)
		}
		publish(t, b, append(args, more...)...)
	}
	reply := func() (string, map[string]any) {
		f := strings.SplitN(next(t, sub), "|", 3)
		var body struct{ Data map[string]any }
		if f[0] != "SUB replies/me" || len(f) != 3 || json.Unmarshal([]byte(f[2]), &body) != nil {
			t.Fatalf("%q", f)
		}
		return f[1], body.Data
	}
	ask("1", "abc", "")
	if corr, data := reply(); corr != "abc" || data["status"] != "ok" || !strings.HasPrefix(fmt.Sprint(data["id"]), "mqtt5-") {
		t.Errorf("%q %v", corr, data)
	}
	ask("2", "def", `{"id":"c-1"}`)
	if corr, data := reply(); corr != "def" || data["status"] != "ok" || data["id"] != "c-1" {
		t.Errorf("%q %v", corr, data)
	}
	ask("0", "ghi", `{"id":"c-1"}`) // the same id: the same answer, to whoever asks now
	if corr, data := reply(); corr != "ghi" || data["id"] != "c-1" {
		t.Errorf("%q %v", corr, data)
	}
	ask("1", "", `{}`)
	if corr, data := reply(); corr != "" || data["status"] != "failed" || !strings.Contains(fmt.Sprint(data["error"]), "correlation data") {
		t.Errorf("%q %v", corr, data)
	}
	if list := line.wait(t, 4, on("cmd/ping/result")); len(list) != 4 {
		t.Errorf("%d results on the usual topic", len(list))
	}
	for _, p := range line.wait(t, 1, kind(wire.SUBSCRIBE)) {
		if n := number(p, subscriptionID); strings.Contains(string(p.Raw), "pump-7/") && (n < 1 || n > 3) {
			t.Errorf("%q with identifier %d", p.Raw, n)
		}
	}
	inbound := 0
	line.mu.Lock()
	for _, s := range line.packets {
		if !s.up && s.Type() == wire.PUBLISH && strings.HasSuffix(s.Topic(), "cmd/ping") && number(s.Packet, subscriptionID) == 1 {
			inbound++
		}
	}
	line.mu.Unlock()
	if inbound != 4 {
		t.Errorf("%d commands came with the number of their subscription", inbound)
	}
}

// CONNECT says what is configured, and the broker's limits are kept.
func TestLimits(t *testing.T) {
	b := mosquitto(t, "max_packet_size 3000", "max_inflight_messages 5", "retain_available false")
	line := newTap(t, b.Addr())
	d := start(t, t.TempDir(), line.Addr().String(), five+"  session_expiry: 2h\n  receive_maximum: 9\n  max_packet: 100KiB\n  will: {delay: 30s}\n", "", nil)
	small, large := d.stored(`{"type":"small"}`), d.stored(`{"type":"large","qos":2,"data":"`+strings.Repeat("x", 3000)+`"}`)
	last := d.stored(`{"type":"small","qos":2}`)
	if l := d.end(large); l.State != queue.StateDead || !strings.Contains(l.Reason, "too large for the broker") || !strings.Contains(l.Reason, "3000") {
		t.Errorf("%+v", l)
	}
	for _, id := range []queue.ID{small, last} {
		if l := d.end(id); l.State != queue.StateAcked || l.Reason != "" && !strings.Contains(l.Reason, "no matching subscribers") {
			t.Errorf("%+v", l)
		}
	}
	connects := line.wait(t, 2, kind(wire.CONNECT)) // the first will was retained, which this broker refuses
	c := connects[len(connects)-1]
	if number(c, sessionExpiry) != 7200 || number(c, receiveMaximum) != 9 || number(c, maxPacket) != 100<<10+5 {
		t.Errorf("%+v", c.Properties5())
	}
	if body := string(c.Raw); !strings.Contains(body, "\x05\x18\x00\x00\x00\x1e\x00\x18fieldagent/pump-7/status") {
		t.Errorf("no will delay of 30 s in %q", body)
	}
	if n := len(line.wait(t, 1, func(p wire.Packet) bool { return p.Type() == wire.PUBLISH && p.QoS() == 0 })); n == 0 {
		t.Error("nothing at QoS 0")
	}
	line.mu.Lock()
	defer line.mu.Unlock()
	flying, most := map[uint16]bool{}, 0
	for _, s := range line.packets {
		switch {
		case s.up && s.Type() == wire.PUBLISH && s.Retain():
			t.Errorf("a retained message on %s, to a broker without", s.Topic())
		case s.up && s.Type() == wire.PUBLISH && s.QoS() > 0:
			flying[s.ID()] = true
			most = max(most, len(flying))
		case !s.up && (s.Type() == wire.PUBACK || s.Type() == wire.PUBCOMP):
			delete(flying, s.ID())
		}
	}
	if most > 5 {
		t.Errorf("%d in flight, the broker takes 5", most)
	}
}

// A reading costs fewer bytes with an alias than with 3.1.1, and one more with MQTT 5 alone.
func TestBytesPerReading(t *testing.T) {
	b := mosquitto(t)
	size := func(mqtt string) int {
		line := newTap(t, b.Addr())
		d := start(t, t.TempDir(), line.Addr().String(), mqtt, "sensors: [{name: cabinet, driver: simulated, every: 100ms}]\n", nil)
		defer d.stop()
		list := line.wait(t, 4, func(p wire.Packet) bool {
			return p.Type() == wire.PUBLISH && p.QoS() == 0 && !p.Retain() && strings.Contains(string(p.Raw), `{"time":`) && strings.Contains(string(p.Raw), `"temperature_celsius":`) && !strings.Contains(string(p.Raw), "outbox")
		})
		return strings.Index(string(list[3].Raw), `{"time"`) // the payload is the same
	}
	three, plain, alias := size(""), size(five+"  topic_alias: false\n"), size(five)
	t.Logf("bytes of a reading on fieldagent/pump-7/sensor/cabinet besides its payload: %d at 3.1.1, %d at 5, %d at 5 with alias", three, plain, alias)
	if plain != three+1 || alias >= three-20 {
		t.Errorf("%d, %d, %d", three, plain, alias)
	}
}

// TestBurstOfCommands: mosquitto sends more at once than it was asked to, as soon as it has held something back. All are answered on one connection.
func TestBurstOfCommands(t *testing.T) {
	b := mosquitto(t)
	sub := client(t, b, "mosquitto_sub", "-q", "1", "-t", "fieldagent/pump-7/cmd/ping/result", "-F", "%p")
	d := start(t, t.TempDir(), b.Addr(), five, "", nil)
	await(t, "the subscription", func() bool { s := d.Status().Broker; return s.Connected && s.Subscribed })
	host, port, _ := net.SplitHostPort(b.Addr())
	const n = 60
	for _, qos := range []string{"1", "2"} {
		var lines strings.Builder
		for i := range n {
			fmt.Fprintf(&lines, "{\"id\":\"q%s-%d\"}\n", qos, i)
		}
		cmd := exec.CommandContext(t.Context(), "mosquitto_pub", "-h", host, "-p", port, "-V", "5", "-q", qos, "-l", "-t", "fieldagent/pump-7/cmd/ping")
		cmd.Stdin = strings.NewReader(lines.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		answered := map[string]bool{}
		for len(answered) < n {
			var e struct{ Data struct{ ID, Status string } }
			if line := next(t, sub); json.Unmarshal([]byte(line), &e) != nil || e.Data.Status != "ok" {
				t.Fatal(line)
			}
			answered[e.Data.ID] = true
		}
	}
	if s := d.Status().Broker; s.Connects != 1 {
		t.Errorf("%d connections", s.Connects)
	}
}

// TestRetainedCommand: with MQTT 5 a command with the retain flag is told from another even while the device is connected.
func TestRetainedCommand(t *testing.T) {
	b := mosquitto(t)
	sub := client(t, b, "mosquitto_sub", "-q", "1", "-t", "fieldagent/pump-7/cmd/+/result", "-F", "%p")
	d := start(t, t.TempDir(), b.Addr(), five, "", nil)
	await(t, "the subscription", func() bool { s := d.Status().Broker; return s.Connected && s.Subscribed })
	publish(t, b, "-q", "1", "-r", "-t", "fieldagent/pump-7/cmd/ping", "-m", `{"id":"r-1"}`)
	if line := next(t, sub); !strings.Contains(line, `"status":"failed"`) || !strings.Contains(line, "retained") {
		t.Error(line)
	}
	publish(t, b, "-q", "1", "-r", "-n", "-t", "fieldagent/pump-7/cmd/ping") // clears it
	publish(t, b, "-q", "1", "-t", "fieldagent/pump-7/cmd/ping", "-m", `{"id":"r-2"}`)
	if line := next(t, sub); !strings.Contains(line, `"id":"r-2","status":"ok"`) {
		t.Error(line)
	}
}
