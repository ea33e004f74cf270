package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"fieldagent/integration/broker"
)

func mosquitto(b testing.TB, inFlight int) broker.Broker {
	b.Helper()
	dir, err := os.MkdirTemp(scratch, "broker-")
	if err != nil {
		b.Fatal(err)
	}
	opt := broker.Options{InFlight: inFlight}
	br, err := broker.Start("mosquitto", dir, opt)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = br.Close() })
	return br
}

// drainAgent returns events per second of the shipped agent, from exec to the last confirmation.
func drainAgent(b testing.TB, addr string, n, qos, window int) float64 {
	b.Helper()
	state, err := os.MkdirTemp(scratch, "state-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(state)
	output(b, "fill", state, strconv.Itoa(n), strconv.Itoa(qos), strconv.Itoa(512<<20))
	a := runAgent(b, state, fmt.Sprintf(brokerSection, addr, window, 512))
	took := a.empty(b, nil)
	a.stop(b)
	return float64(n) / took.Seconds()
}

func drainPaho(b testing.TB, addr string, n, qos, window int, file bool) float64 {
	b.Helper()
	dir := ""
	if file {
		var err error
		if dir, err = os.MkdirTemp(scratch, "paho-"); err != nil {
			b.Fatal(err)
		}
		defer os.RemoveAll(dir)
	}
	return float64(n) / seconds(b, output(b, "paho-drain", addr, strconv.Itoa(n), strconv.Itoa(qos), strconv.Itoa(window), dir))
}

func seconds(b testing.TB, s string) float64 {
	b.Helper()
	x, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil {
		b.Fatal(err)
	}
	return x
}

// BenchmarkDrain compares the drain of a backlog. paho's stores are neither durable nor ordered; the agent's is both.
func BenchmarkDrain(b *testing.B) {
	const rounds = 3
	js := mqttJS(b)
	for _, c := range []struct {
		name     string
		inFlight int // of mosquitto; 0 is its default
		window   int
		n        int
	}{{"window=100,unlimited", 65535, 100, 30000}, {"window=16", 0, 16, 20000}} {
		for qos, floor := range map[int]float64{1: 1, 2: 0.6} {
			b.Run(fmt.Sprintf("%s/qos=%d", c.name, qos), func(b *testing.B) {
				br := mosquitto(b, c.inFlight)
				var toFile, toMemory, toJS []float64
				for range rounds {
					agent := drainAgent(b, br.Addr(), c.n, qos, c.window)
					toFile = append(toFile, agent/drainPaho(b, br.Addr(), c.n, qos, c.window, true))
					toMemory = append(toMemory, agent/drainPaho(b, br.Addr(), c.n, qos, c.window, false))
					toJS = append(toJS, agent/js.drain(b, br.Addr(), c.n/10, qos, c.window))
					b.Logf("agent %.0f events/s", agent)
				}
				what := fmt.Sprintf("drain QoS %d, %s, times ", qos, c.name)
				limits := "the broker, and its round trips within the window"
				report(b, row{what: what + "paho FileStore", got: median(toFile), floor: floor, side: atLeast, unit: "x FileStore", limits: limits})
				report(b, row{what: what + "paho MemoryStore (no floor)", got: median(toMemory), floor: 0, side: atLeast, unit: "x MemoryStore", limits: limits})
				report(b, row{what: what + "MQTT.js level store", got: median(toJS), floor: 5, side: atLeast, unit: "x MQTT.js", limits: limits})
			})
		}
	}
}

// node is MQTT.js with its level store, installed once into the user's cache.
type node struct{ dir string }

func mqttJS(b testing.TB) node {
	b.Helper()
	base, err := os.UserCacheDir()
	if err != nil {
		b.Fatal(err)
	}
	dir := filepath.Join(base, "fieldagent", "bench-mqttjs-1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "mqtt-level-store")); err != nil {
		install := exec.Command("npm", "install", "--no-audit", "--no-fund", "--prefix", dir, "mqtt@5", "mqtt-level-store@3")
		if out, err := install.CombinedOutput(); err != nil {
			b.Fatalf("MQTT.js: %v\n%s", err, out)
		}
	}
	script, err := os.ReadFile(filepath.Join("testdata", "drain.cjs"))
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "drain.cjs"), script, 0o644); err != nil {
		b.Fatal(err)
	}
	return node{dir}
}

func (j node) drain(b testing.TB, addr string, n, qos, window int) float64 {
	b.Helper()
	store, err := os.MkdirTemp(scratch, "level-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(store)
	cmd := exec.Command("node", filepath.Join(j.dir, "drain.cjs"), "mqtt://"+addr, strconv.Itoa(n), strconv.Itoa(qos), strconv.Itoa(window), store, wireEvent)
	cmd.Dir = j.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("MQTT.js: %v\n%s", err, out)
	}
	return float64(n) / seconds(b, string(out))
}
