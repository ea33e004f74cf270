package sensortest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
)

// units are the last words of value names.
var units = []string{"celsius", "percent", "hectopascal", "lux", "ppm", "ppb", "volts", "amperes", "watts", "g", "metres", "rpm", "dbm", "bytes", "seconds"}

// plain are names without a unit: counts and states.
var plain = []string{"load_1m", "throttled", "under_voltage", "link_up"}

// Contract is what every driver must pass.
func Contract(t *testing.T, d sensors.Driver) {
	if d.Name == "" || d.Summary == "" || strings.ContainsAny(d.Summary, "\n.") {
		t.Errorf("summary %q is one line without a full stop", d.Summary)
	}
	if d.Options() == d.Options() {
		t.Error("Options must return new options each time")
	}
	if !strings.Contains(d.Example, "driver: "+d.Name) || !strings.Contains(d.Example, "name: ") {
		t.Errorf("example %q does not show it", d.Example)
	}
	if len(d.Quantities) == 0 {
		t.Error("no quantities")
	}
	for _, q := range d.Quantities {
		unit := q.Name[strings.LastIndexByte(q.Name, '_')+1:]
		if strings.ToLower(q.Name) != q.Name || !slices.Contains(units, unit) && !slices.Contains(plain, q.Name) {
			t.Errorf("quantity %q: names are lower case and end in a unit: %v", q.Name, units)
		}
	}
	if at, ok := sensors.PlaceOf(sensors.Config{Options: d.Options()}); ok && !slices.Contains(d.Addresses, at.Address) {
		t.Errorf("the default address %#x is none of %#x", at.Address, d.Addresses)
	}
	if d.Name != "simulated" {
		t.Run("nothing", func(t *testing.T) { contractNothing(t, d) })
	}
	if len(d.Addresses) > 0 {
		t.Run("nobody answers", func(t *testing.T) { contractSilence(t, d) })
		t.Run("garbage", func(t *testing.T) { contractGarbage(t, d) })
	}
}

func once(t *testing.T, d sensors.Driver, b sensors.Board, timeout time.Duration) ([]sensors.Value, error) {
	return sensors.ReadOnce(t.Context(), sensors.Config{Name: "x", Driver: d.Name, Timeout: timeout, Options: d.Options()}, []sensors.Driver{d}, b)
}

// A board that has nothing: an error, not a panic.
func contractNothing(t *testing.T, d sensors.Driver) {
	synctest.Test(t, func(t *testing.T) {
		if v, err := once(t, d, Board{}, time.Second); err == nil || strings.Contains(err.Error(), "panics") {
			t.Errorf("%v, %v on a board that has nothing", v, err)
		}
	})
}

// A bus without the chip: the error says that, and where.
func contractSilence(t *testing.T, d sensors.Driver) {
	synctest.Test(t, func(t *testing.T) {
		_, err := once(t, d, Board{Buses: map[string]i2c.Bus{"i2c-1": silent{}}}, 10*time.Second)
		if err == nil || !strings.Contains(err.Error(), "no chip answers") {
			p, _ := sensors.PlaceOf(sensors.Config{Options: d.Options()})
			t.Errorf("%v: want no chip answers at %#x", err, p.Address)
		}
	})
}

type silent struct{}

func (silent) String() string                  { return "silent" }
func (silent) SetSpeed(physic.Frequency) error { return nil }
func (silent) Tx(uint16, []byte, []byte) error {
	return fmt.Errorf("%w (remote I/O error)", sensors.ErrNoAnswer)
}

// A chip that answers anything: no panic, an end, and no value that is not plausible. The ids are right, so that the driver itself is asked.
func contractGarbage(t *testing.T, d sensors.Driver) {
	seeds := uint64(200)
	if testing.Short() {
		seeds = 40
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			bus := Simulated(func(_ uint16, w, r []byte) []byte {
				for _, id := range d.IDs {
					if slices.Equal(w, id.Write) {
						return id.Value
					}
				}
				out := make([]byte, len(r))
				for i := range out {
					out[i] = []byte{0, 0xff, byte(rnd.Uint32())}[rnd.IntN(3)]
				}
				return out
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			v, err := once(t, d, Board{Buses: bus}, 5*time.Second)
			if err != nil && strings.Contains(err.Error(), "panics") || ctx.Err() != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			for _, x := range v {
				i := slices.IndexFunc(d.Quantities, func(q sensors.Quantity) bool { return q.Name == x.Name })
				if i < 0 && !d.AnyValue {
					t.Errorf("seed %d: %s is none of its quantities", seed, x.Name)
				} else if i >= 0 && d.Quantities[i].Min < d.Quantities[i].Max && (x.Number < d.Quantities[i].Min || x.Number > d.Quantities[i].Max) {
					t.Errorf("seed %d: %s is %g", seed, x.Name, x.Number)
				}
			}
			<-time.After(10 * time.Minute) // what was left behind ends by itself
		})
	}
}
