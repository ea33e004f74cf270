// Package campaign hurts an agent as a field does, and has a consumer that shares no code with it say what became of the events.
//
// A Rig is a real broker, a proxy that understands MQTT, the built agent as a process, producers on its socket, and the consumer. The driver
// kills the agent at random and at named points, restarts the broker, cuts lines and leaves them half-open. In the end all is healed, and everything that a producer
// was told is on disk must have come: once at QoS 2, in order, without gaps. Two logs of raw packets prove whose fault anything else is.
package campaign

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"fieldagent/integration/broker"
	"fieldagent/integration/device"
	"fieldagent/integration/proxy"
	"fieldagent/integration/verify"
	"fieldagent/integration/wire"
)

const (
	deviceID = "campaign"
	source   = "fieldagent/" + deviceID
)

// Setup says what a rig is made of.
type Setup struct {
	Program string        // the built agent
	Broker  string        // mosquitto or nats
	Version string        // of MQTT; 3.1.1 when empty
	Dir     string        // short: the agent's socket lies in it
	Config  string        // more lines for the agent
	Grace   time.Duration // how long the broker may sit on a message that it has confirmed; 45 s when 0, since NATS waits 30 s before it delivers again
}

// Rig is everything around one agent.
type Rig struct {
	Setup
	Broker2 broker.Broker
	Proxy   *proxy.Proxy
	Device  *device.Device
	Judge   *verify.Judge

	toAgent, toConsumer *wire.Log
	consumer            *verify.Consumer
	also                func(topic string, payload []byte)
	readings            atomic.Uint64
	kills               []time.Time
	cancel              context.CancelFunc
	running             sync.WaitGroup
	consumerEnd         chan error
}

// NewRig starts broker, proxy and consumer, and makes a device that does not run yet. also gets every message; it may be nil.
func NewRig(s Setup, also func(topic string, payload []byte)) (*Rig, error) {
	if s.Grace == 0 {
		s.Grace = 45 * time.Second
	}
	r := &Rig{Setup: s, Judge: verify.NewJudge(), consumerEnd: make(chan error, 1), also: also}
	b, err := broker.Start(s.Broker, filepath.Join(s.Dir, "broker"), broker.Options{})
	if err != nil {
		return nil, err
	}
	r.Broker2 = b
	if err := r.around(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Rig) around() (err error) {
	if r.toAgent, err = wire.CreateLog(filepath.Join(r.Dir, "agent.wire")); err != nil {
		return err
	}
	if r.toConsumer, err = wire.CreateLog(filepath.Join(r.Dir, "consumer.wire")); err != nil {
		return err
	}
	if r.Proxy, err = proxy.Listen(r.Broker2.Addr(), r.toAgent); err != nil {
		return err
	}
	if r.Device, err = device.New(r.Program, r.Dir, r.config()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.running.Go(func() { _ = r.Proxy.Run(ctx) })
	r.consumer = &verify.Consumer{Addr: r.Broker2.Addr(), ClientID: "judge", Filter: source + "/#", Log: r.toConsumer, Judge: r.Judge, Message: r.message}
	r.running.Go(func() { r.consumerEnd <- r.consumer.Run(ctx) })
	select {
	case <-r.consumer.Ready():
		return nil
	case err := <-r.consumerEnd:
		return fmt.Errorf("the judge: %w", err)
	case <-time.After(30 * time.Second):
		return errors.New("the judge gets no subscription within 30 s")
	}
}

// message gives the judge events only, not readings and retained state.
func (r *Rig) message(topic string, payload []byte, qos byte) {
	level := strings.TrimPrefix(topic, source+"/")
	if strings.HasPrefix(level, "event/") || strings.HasPrefix(level, "cmd/") && strings.HasSuffix(level, "/result") {
		r.Judge.Deliver(topic, payload, qos)
	}
	if level == "sensor/live" {
		r.readings.Add(1)
	}
	if r.also != nil {
		r.also(topic, payload)
	}
}

func (r *Rig) config() string {
	version := r.Version
	if version == "" {
		version = "3.1.1"
	}
	return fmt.Sprintf(`device: {id: %s}
mqtt:
  servers: ["mqtt://%s"]
  version: %q
  keepalive: 1s
  connect_timeout: 2s
  reconnect: {min: 10ms, max: 100ms}
sensors:
  - {name: live, driver: simulated, every: 100ms}
%s`, deviceID, r.Proxy.Addr(), version, r.Config)
}

// Close ends everything; the folder stays.
func (r *Rig) Close() error {
	if r.Device != nil {
		r.Device.Kill()
	}
	if r.cancel != nil {
		r.cancel()
		r.running.Wait()
	}
	var err error
	if r.Broker2 != nil {
		err = r.Broker2.Close()
	}
	for _, l := range []*wire.Log{r.toAgent, r.toConsumer} {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
	}
	return err
}

// Heal lets the agent run undisturbed until everything that was accepted has come and the outbox is empty.
func (r *Rig) Heal(limit time.Duration) error {
	r.Proxy.Set()
	r.Proxy.Refuse(false)
	r.Device.Kill() // the process may have a fault point in it
	if err := r.Device.Start(""); err != nil {
		return err
	}
	if err := r.Device.Await(30 * time.Second); err != nil {
		return err
	}
	return r.quiet(limit)
}

// quiet waits until everything has come and nothing more comes.
func (r *Rig) quiet(limit time.Duration) error {
	if err := r.settled(limit); err != nil {
		return err
	}
	for r.Judge.Quiet() < 300*time.Millisecond { // a double may still come
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

type status struct {
	Broker struct {
		Connected  bool `json:"connected"`
		Subscribed bool `json:"subscribed"`
	} `json:"broker"`
	Outbox struct {
		Depth     int    `json:"depth"`
		Dead      int    `json:"dead"`
		Ambiguous uint64 `json:"ambiguous"`
	} `json:"outbox"`
}

func (r *Rig) depth() (int, error) {
	var s status
	err := r.Device.Get("/v1/status", &s)
	return s.Outbox.Depth, err
}

// between draws a duration so that each order of magnitude is as likely as the next.
func between(rnd *rand.Rand, shortest, longest time.Duration) time.Duration {
	ratio := float64(longest) / float64(shortest)
	return time.Duration(float64(shortest) * math.Pow(ratio, rnd.Float64()))
}

// known lets the agent connect once, so that the broker has a session in which commands wait.
func (r *Rig) known() error {
	if err := r.Device.Start(""); err != nil {
		return err
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var s status
		if r.Device.Get("/v1/status", &s) == nil && s.Broker.Connected && s.Broker.Subscribed {
			return nil
		}
		if time.Now().After(end) {
			return errors.New("the agent does not connect and subscribe within 30 s")
		}
	}
}
