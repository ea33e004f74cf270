package sensors_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fieldagent/sensors"
	"fieldagent/sensors/sensortest"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
)

// chips is a bus with a chip of one register at each address. A test makes it slow, makes it hang, and takes chips away.
type chips struct {
	mu   sync.Mutex
	at   map[uint16]byte
	took time.Duration
	hang chan struct{} // not nil: transfers hang until it is closed
	busy int
	t    *testing.T
}

func (c *chips) String() string { return "chips" }

func (c *chips) SetSpeed(physic.Frequency) error { return nil }

func (c *chips) Tx(addr uint16, _, r []byte) error {
	c.mu.Lock()
	if c.busy++; c.busy > 1 {
		c.t.Error("two transfers at once on one bus")
	}
	hang, took := c.hang, c.took
	v, there := c.at[addr]
	c.mu.Unlock()
	if hang != nil {
		<-hang
	}
	<-time.After(took)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy--
	if !there {
		return fmt.Errorf("%w (remote I/O error)", sensors.ErrNoAnswer)
	}
	if len(r) > 0 {
		r[0] = v
	}
	return nil
}

func (c *chips) set(addr uint16, v byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at[addr] = v
}

func (c *chips) remove(addr uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.at, addr)
}

type chipOptions struct {
	Bus     string
	Address uint16
}

func (o *chipOptions) Place() sensors.Place { return sensors.Place{Bus: o.Bus, Address: o.Address} }

// chip is a driver of such chips. Its Read waits between two transfers, as chips that convert do.
func chip(name string, waits time.Duration, ids ...sensors.ID) sensors.Driver {
	return sensors.Driver{Name: name, Options: func() any { return &chipOptions{} }, Quantities: []sensors.Quantity{{Name: "t_celsius"}}, Addresses: []uint16{0x76, 0x77}, IDs: ids,
		Open: func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
			o := opts.(*chipOptions)
			bus, err := b.I2C(o.Bus)
			dev := i2c.Dev{Bus: bus, Addr: o.Address}
			return chipSensor{dev, fake{read: func(ctx context.Context) ([]sensors.Value, error) {
				if err := dev.Tx([]byte{1}, nil); err != nil {
					return nil, err
				}
				select {
				case <-time.After(waits):
				case <-ctx.Done():
					return nil, ctx.Err()
				}
				var v [1]byte
				if err := dev.Tx([]byte{0}, v[:]); err != nil {
					return nil, errors.New("some driver's words") // it does not pass on why
				}
				return value(float64(v[0])), nil
			}}}, err
		}}
}

type chipSensor struct {
	dev i2c.Dev
	fake
}

// Close puts the chip to sleep, and hangs when its bus does.
func (s chipSensor) Close() error { return s.dev.Tx([]byte{2}, nil) }

func on(bus string, addr uint16, name string, every time.Duration) sensors.Config {
	return sensors.Config{Name: name, Driver: "chip", Every: every, Timeout: 5 * time.Second, Options: &chipOptions{bus, addr}}
}

func run(t *testing.T, b sensors.Board, cfg []sensors.Config, drivers ...sensors.Driver) (*collector, *sensors.Set, func() time.Duration) {
	t.Helper()
	s, err := sensors.New(cfg, drivers, sensors.Options{Board: b})
	if err != nil {
		t.Fatal(err)
	}
	return started(t, s)
}

// One bus hangs for ever, in the middle of a transfer: readings on the other are on time to 50 ms, others on the hanging bus are told why at once, and the end does not wait.
func TestHangingBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good, bad := &chips{t: t, at: map[uint16]byte{0x76: 20, 0x77: 21}, took: time.Millisecond}, &chips{t: t, at: map[uint16]byte{0x76: 1, 0x77: 2}, took: time.Millisecond}
		b := sensortest.Board{Buses: map[string]i2c.Bus{"i2c-1": good, "i2c-2": bad}}
		c, set, stop := run(t, b, []sensors.Config{on("i2c-1", 0x76, "a", time.Second), on("i2c-1", 0x77, "b", time.Second), on("i2c-2", 0x76, "x", time.Second), on("i2c-2", 0x77, "y", time.Second)}, chip("chip", 5*time.Millisecond))
		<-time.After(10 * time.Second)
		bad.mu.Lock()
		bad.hang = make(chan struct{})
		bad.mu.Unlock()
		<-time.After(10 * time.Minute)
		for _, name := range []string{"a", "b"} {
			r := c.of(name)
			if len(r) < 609 {
				t.Fatalf("%s: %d readings in 610 seconds", name, len(r))
			}
			for i := 2; i < len(r); i++ {
				if d := r[i].At.Sub(r[1].At) - time.Duration(i-1)*time.Second; d < -50*time.Millisecond || d > 50*time.Millisecond || r[i].Err != nil {
					t.Fatalf("%s: reading %d is %v off, %v", name, i, d, r[i].Err)
				}
			}
		}
		texts := ""
		for _, s := range set.States()[2:] {
			if s.State != sensors.StateFailed {
				t.Errorf("%+v", s)
			}
			texts += s.Err
		}
		if !strings.Contains(texts, "still hangs") || !strings.Contains(texts, "the bus is stuck: the transfer of sensor") || !strings.Contains(texts, "pull-ups") {
			t.Errorf("not said why: %s", texts)
		}
		if took := stop(); took > 2*time.Second {
			t.Errorf("the end took %v", took)
		}
		close(bad.hang)
		<-time.After(time.Second) // what was left behind ends
	})
}

// The end does not wait for a transfer that has just begun to hang, nor for chips on its bus that want to be put to sleep.
func TestEndWhileABusHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := &chips{t: t, at: map[uint16]byte{0x76: 1, 0x77: 2}}
		_, _, stop := run(t, sensortest.Board{Buses: map[string]i2c.Bus{"i2c-1": bus}}, []sensors.Config{on("i2c-1", 0x76, "a", time.Second), on("i2c-1", 0x77, "b", time.Second)}, chip("chip", 0))
		<-time.After(10 * time.Second)
		bus.mu.Lock()
		bus.hang = make(chan struct{})
		bus.mu.Unlock()
		<-time.After(1200 * time.Millisecond)
		if took := stop(); took > 2*time.Second {
			t.Errorf("the end took %v", took)
		}
		close(bus.hang)
		<-time.After(time.Second)
	})
}

// A bus that hung and works again is used again, by itself.
func TestBusRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := &chips{t: t, at: map[uint16]byte{0x76: 7, 0x77: 8}, hang: make(chan struct{})}
		c, set, stop := run(t, sensortest.Board{Buses: map[string]i2c.Bus{"i2c-1": bus}}, []sensors.Config{on("i2c-1", 0x76, "a", time.Second), on("i2c-1", 0x77, "b", time.Second)}, chip("chip", 0))
		<-time.After(time.Minute)
		if n := len(c.of("a")); n == 0 || set.States()[0].State != sensors.StateFailed {
			t.Errorf("%d reports, %+v", n, set.States()[0])
		}
		hang := bus.hang
		bus.mu.Lock()
		bus.hang = nil
		bus.mu.Unlock()
		close(hang)
		<-time.After(6 * time.Minute) // the longest pause is 5
		for _, s := range set.States() {
			if s.State != sensors.StateOK {
				t.Errorf("%+v", s)
			}
		}
		stop()
	})
}

// A driver that waits five seconds for its chip does not hold up another chip on the same bus.
func TestWaitingDoesNotHoldTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := &chips{t: t, at: map[uint16]byte{0x76: 1, 0x77: 2}, took: time.Millisecond}
		slow, fast := on("i2c-1", 0x76, "slow", 10*time.Second), on("i2c-1", 0x77, "fast", time.Second)
		slow.Driver, slow.Timeout = "slow", 8*time.Second
		c, _, stop := run(t, sensortest.Board{Buses: map[string]i2c.Bus{"i2c-1": bus}}, []sensors.Config{slow, fast}, chip("chip", 0), chip("slow", 5*time.Second))
		<-time.After(2 * time.Minute)
		stop()
		r := c.of("fast")
		for i := 2; i < len(r); i++ {
			if d := r[i].At.Sub(r[1].At) - time.Duration(i-1)*time.Second; d < -50*time.Millisecond || d > 50*time.Millisecond {
				t.Fatalf("reading %d is %v off", i, d)
			}
		}
		if len(r) < 119 || len(c.of("slow")) < 11 {
			t.Errorf("%d and %d readings", len(r), len(c.of("slow")))
		}
	})
}

// A chip that is unplugged is failed with words that help, and is back soon after it is plugged in.
func TestVanishesAndReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := &chips{t: t, at: map[uint16]byte{0x76: 7}}
		c, set, stop := run(t, sensortest.Board{Buses: map[string]i2c.Bus{"i2c-1": bus}}, []sensors.Config{on("i2c-1", 0x76, "a", time.Second)}, chip("chip", 0))
		<-time.After(10 * time.Second)
		bus.remove(0x76)
		<-time.After(10 * time.Second)
		if s := set.States()[0]; s.State != sensors.StateFailed || !strings.Contains(s.Err, "i2c-1 address 0x76: no chip answers") || !strings.Contains(s.Err, "fieldagent scan") {
			t.Errorf("%+v", s)
		}
		bus.set(0x76, 9)
		<-time.After(20 * time.Second)
		if s := set.States()[0]; s.State != sensors.StateOK {
			t.Errorf("%+v", s)
		}
		r := c.of("a")
		if last := r[len(r)-1]; last.Err != nil || last.Values[0].Number != 9 {
			t.Errorf("%+v", last)
		}
		stop()
	})
}

func TestWrongChip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id := func(v byte) sensors.ID { return sensors.ID{Write: []byte{0xd0}, Value: []byte{v}} }
		mine, other := chip("chip", 0, id(0x60)), chip("bmp280", 0, id(0x58))
		bus := &chips{t: t, at: map[uint16]byte{0x76: 0x58, 0x77: 0x99}}
		b := sensortest.Board{Buses: map[string]i2c.Bus{"i2c-1": bus}}
		for addr, want := range map[uint16]string{0x76: "0x76 on i2c-1 answers with id 0x58: that is a bmp280; write driver: bmp280", 0x77: "answers with id 0x99, a chip has 0x60: another chip is there"} {
			_, err := sensors.ReadOnce(t.Context(), on("i2c-1", addr, "a", time.Second), []sensors.Driver{mine, other}, b)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q in it", err, want)
			}
		}
		bus.set(0x77, 0x60)
		if v, err := sensors.ReadOnce(t.Context(), on("i2c-1", 0x77, "a", time.Second), []sensors.Driver{mine, other}, b); err != nil || v[0].Number != 0x60 {
			t.Errorf("%v, %v", v, err)
		}
	})
}

// What a driver does not pass on is said all the same.
func TestReasonIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := &chips{t: t, at: map[uint16]byte{0x76: 1}}
		d := chip("chip", time.Second)
		go func() {
			<-time.After(500 * time.Millisecond)
			bus.remove(0x76)
		}()
		_, err := sensors.ReadOnce(t.Context(), on("i2c-1", 0x76, "a", time.Second), []sensors.Driver{d}, sensortest.Board{Buses: map[string]i2c.Bus{"i2c-1": bus}})
		if !errors.Is(err, sensors.ErrNoAnswer) || !strings.Contains(err.Error(), "some driver's words") {
			t.Error(err)
		}
	})
}

func TestTwoAtOneAddress(t *testing.T) {
	_, err := sensors.New([]sensors.Config{on("i2c-1", 0x76, "a", time.Second), on("i2c-2", 0x76, "b", time.Second), on("i2c-1", 0x76, "c", time.Second)}, []sensors.Driver{chip("chip", 0)}, sensors.Options{})
	if err == nil || !strings.Contains(err.Error(), "sensor a: c is at address 0x76 of i2c-1 already") || !strings.Contains(err.Error(), "sensor c: a is at") || strings.Contains(err.Error(), "sensor b") {
		t.Error(err)
	}
}

// A running set reads for people between its own readings, also when the sensor has failed and waits.
func TestReadNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := &chips{t: t, at: map[uint16]byte{}}
		_, set, stop := run(t, sensortest.Board{Buses: map[string]i2c.Bus{"i2c-1": bus}}, []sensors.Config{on("i2c-1", 0x76, "a", time.Hour)}, chip("chip", time.Second))
		<-time.After(2 * time.Minute)
		if _, err := set.Read(t.Context(), "a"); !errors.Is(err, sensors.ErrNoAnswer) {
			t.Error(err)
		}
		bus.set(0x76, 5)
		if v, err := set.Read(t.Context(), "a"); err != nil || v[0].Number != 5 {
			t.Errorf("%v, %v", v, err)
		}
		if _, err := set.Read(t.Context(), "b"); err == nil {
			t.Error("a sensor that is not there was read")
		}
		stop()
	})
}
