package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	bolt "go.etcd.io/bbolt"
)

// wireEvent is as long as an event of the agent's with payload as its data: every publisher sends the same bytes.
var wireEvent = `{"specversion":"1.0","source":"fieldagent/bench","id":"3f9a1c2e-0000000000000042","sequence":"0000000000000042","type":"meter","time":"2026-11-22T10:00:00.123Z","clock":"synced","boot":"8d21c0b4","datacontenttype":"application/json","data":` + string(payload) + `}`

// wireReading is a reading of one simulated sensor.
const wireReading = `{"time":"2026-11-22T10:00:00.123Z","temperature_celsius":21.53}`

func pahoClient(addr, id string, store paho.Store) (paho.Client, error) {
	o := paho.NewClientOptions().AddBroker("tcp://" + addr).SetClientID(id).SetCleanSession(false).SetProtocolVersion(4).SetOrderMatters(false)
	if store != nil {
		o.SetStore(store)
	}
	c := paho.NewClient(o)
	t := c.Connect()
	t.Wait()
	return c, t.Error()
}

// pahoDrainRole publishes: ADDR N QOS WINDOW STOREDIR ("" is the MemoryStore). It prints the seconds from the first publish to the last token.
func pahoDrainRole(args []string) error {
	n, err1 := strconv.Atoi(args[1])
	qos, err2 := strconv.Atoi(args[2])
	window, err3 := strconv.Atoi(args[3])
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	var store paho.Store = paho.NewMemoryStore()
	if args[4] != "" {
		store = paho.NewFileStore(args[4])
	}
	c, err := pahoClient(args[0], "bench-paho", store)
	if err != nil {
		return err
	}
	room := make(chan struct{}, window)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	began := time.Now()
	for range n {
		room <- struct{}{}
		t := c.Publish("fieldagent/bench/event/meter", byte(qos), false, wireEvent)
		wg.Add(1)
		go func() {
			defer wg.Done()
			t.Wait()
			if t.Error() != nil {
				mu.Lock()
				failed = t.Error()
				mu.Unlock()
			}
			<-room
		}()
	}
	wg.Wait()
	fmt.Println(time.Since(began).Seconds())
	c.Disconnect(100)
	return failed
}

// pahoReadingsRole publishes readings at QoS 0 as ten sensors do, one every 100 ms each, until its input ends: ADDR.
func pahoReadingsRole(args []string) error {
	c, err := pahoClient(args[0], "bench-readings", nil)
	if err != nil {
		return err
	}
	for i := range 10 {
		go func() {
			for range time.Tick(100 * time.Millisecond) {
				c.Publish(fmt.Sprintf("fieldagent/bench/sensor/s%d", i), 0, false, wireReading)
			}
		}()
	}
	_, err = os.Stdin.Read(make([]byte, 1))
	if err != nil && strings.Contains(err.Error(), "EOF") {
		return nil
	}
	return err
}

// bareRole is the least that a durable publisher does at start: open a bbolt file, connect, publish a reading: ADDR DIR.
func bareRole(args []string) error {
	db, err := bolt.Open(filepath.Join(args[1], "bare.db"), 0o600, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	c, err := pahoClient(args[0], "bench-bare", nil)
	if err != nil {
		return err
	}
	t := c.Publish("fieldagent/bench/sensor/s0", 0, false, wireReading)
	t.Wait()
	c.Disconnect(250)
	return t.Error()
}
