package drivers

import (
	"encoding/json"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"fieldagent/sensors"
	"fieldagent/sensors/sensortest"

	"periph.io/x/conn/v3/i2c/i2ctest"
)

func TestSCD4x(t *testing.T) {
	io := at(0x62)
	stop := io([]byte{0x3f, 0x86})
	open := []i2ctest.IO{stop, io([]byte{0x36, 0x82}), io(nil, checked(0xf896, 0x9f07, 0x3bbe)...), io(withWords(0x2427, 0)), io([]byte{0x24, 0x16, 0x00, 0x01, 0xb0}), io([]byte{0x21, 0xb1})}
	ask := io([]byte{0xe4, 0xb8})
	notYet, ready, measured := io(nil, checked(0x8000)...), io(nil, checked(0x8006)...), io([]byte{0xec, 0x05})
	with := func(more ...i2ctest.IO) []i2ctest.IO { return append(append(open[:6:6], more...), stop) }
	// The data sheet's example, section 3.5.2: 500 ppm, 25 °C, 37 %.
	got := virtual(t, scd4x, nil, with(ask, notYet, ask, notYet, ask, ready, measured, io(nil, 0x01, 0xf4, 0x33, 0x66, 0x67, 0xa2, 0x5e, 0xb9, 0x3c))...)
	near(t, got, "co2_ppm", 500, 500)
	near(t, got, "temperature_celsius", 24.99, 25.01)
	near(t, got, "relative_humidity_percent", 36.99, 37.01)
	near(t, virtual(t, scd4x, nil, with(ask, ready, measured, io(nil, checked(700, 0x3a83, 0x8000)...))...), "temperature_celsius", -5.01, -4.99)
	refused(t, scd4x, nil, "checksum", with(ask, ready, measured, io(nil, broken(checked(500, 0x6667, 0x5eb9))...))...)
	refused(t, scd4x, nil, "co2_ppm is 0", with(ask, ready, measured, io(nil, checked(0, 0x6667, 0x5eb9)...))...)
	refused(t, scd4x, nil, "serial number: checksum", open[0], open[1], io(nil, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))
	o := &scd4xOptions{bus: bus{"i2c-1"}, Altitude: 1950}
	virtual(t, scd4x, o, stop, open[1], open[2], io([]byte{0x24, 0x27, 0x07, 0x9e, 0x09}), io(withWords(0x2416, 0)), open[5], ask, ready, measured, io(nil, checked(500, 0x6667, 0x5eb9)...), stop)
}

// memory is what survives a restart.
type memory map[string][]byte

func (m memory) Load(key string) ([]byte, error) { return m[key], nil }

func (m memory) Keep(key string, v []byte) error { m[key] = v; return nil }

// sgp is a board with an SGP30 that counts what it is told.
type sgp struct {
	serial   uint16
	last     uint16
	measured int
	baseline []byte // as set
	gaps     int    // measurements that were not a second apart
	at       time.Time
}

func (s *sgp) tx(_ uint16, w, r []byte) []byte {
	if len(w) > 1 {
		s.last = uint16(w[0])<<8 | uint16(w[1])
		switch s.last {
		case 0x2008:
			if d := time.Since(s.at); s.measured > 0 && (d < 900*time.Millisecond || d > 1200*time.Millisecond) {
				s.gaps++
			}
			s.measured, s.at = s.measured+1, time.Now()
		case 0x201e:
			s.baseline = append([]byte(nil), w[2:]...)
		}
	}
	switch s.last {
	case 0x202f:
		return checked(0x0022)
	case 0x3682:
		return checked(0, 0, s.serial)
	case 0x2008:
		if s.measured < 15 {
			return checked(400, 0)
		}
		return checked(612, 43)
	case 0x2015:
		return checked(0x8a7b, 0x8d12)
	}
	return r
}

// Two days of one reading a minute: it is measured each second, the baseline is kept after twelve hours and then hourly, and restored after a restart, in the right order, if it is this chip's and not too old.
func TestSGP30(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := memory{}
		chip := &sgp{serial: 7}
		live := func(chip *sgp, d time.Duration) (readings []sensors.Reading) {
			readings = nil
			set, err := sensors.New([]sensors.Config{{Name: "air", Driver: "sgp30", Every: time.Minute, Timeout: 5 * time.Second, Options: sgp30.Options()}}, All,
				sensors.Options{Board: sensortest.Board{Buses: sensortest.Simulated(chip.tx)}, Memory: kept})
			if err != nil {
				t.Fatal(err)
			}
			p := sensortest.Run(t, set)
			<-time.After(d)
			return p.Stop()
		}
		for _, r := range live(chip, 11*time.Hour) {
			if r.Err != nil || r.Values[0].Number != 612 || r.Values[1].Number != 43 {
				t.Fatalf("%+v", r) // the fixed values of the first 15 s must not be seen
			}
		}
		if chip.gaps > 2 || chip.measured < 11*3600-10 || len(kept) != 0 || chip.baseline != nil {
			t.Errorf("%d measurements, %d not a second apart, kept %v, restored % x", chip.measured, chip.gaps, kept, chip.baseline)
		}
		chip = &sgp{serial: 7}
		live(chip, 13*time.Hour)
		if len(kept["air/baseline"]) == 0 || chip.baseline != nil {
			t.Fatalf("kept %v, restored % x", kept, chip.baseline)
		}
		chip = &sgp{serial: 7}
		live(chip, time.Minute)
		if want := checked(0x8d12, 0x8a7b); string(chip.baseline) != string(want) { // TVOC first
			t.Errorf("restored % x, want % x", chip.baseline, want)
		}
		if before := maps.Clone(kept); true {
			live(&sgp{serial: 7}, 2*time.Hour)
			if string(before["air/baseline"]) == string(kept["air/baseline"]) {
				t.Error("after a restored baseline it is not kept hourly")
			}
		}
		other := &sgp{serial: 8}
		live(other, time.Minute)
		if other.baseline != nil {
			t.Error("the baseline of another chip was restored")
		}
		<-time.After(8 * 24 * time.Hour)
		old := &sgp{serial: 7}
		live(old, time.Minute)
		if old.baseline != nil {
			t.Error("a baseline older than a week was restored")
		}
		var b sgp30Baseline
		if err := json.Unmarshal(kept["air/baseline"], &b); err != nil || b.CO2 != 0x8a7b || b.TVOC != 0x8d12 || b.Serial != 7 {
			t.Errorf("%+v, %v", b, err)
		}
	})
}

func TestSGP30Refuses(t *testing.T) {
	io := at(0x58)
	refused(t, sgp30, nil, "not an SGP30", io([]byte{0x20, 0x2f}), io(nil, checked(0x1022)...))
	refused(t, sgp30, nil, "checksum", io([]byte{0x20, 0x2f}), io(nil, 0, 0x22, 0))
}

func TestCCS811(t *testing.T) {
	io := at(0x5a)
	reset := io([]byte{0xff, 0x11, 0xe5, 0x72, 0x8a})
	status := func(s byte) i2ctest.IO { return io([]byte{0}, s) }
	open := []i2ctest.IO{io([]byte{0x20}, 0x81), reset, status(0x10), io([]byte{0xf4}), io([]byte{0x01, 0x10})}
	idle := io([]byte{0x01, 0x00})
	with := func(more ...i2ctest.IO) []i2ctest.IO { return append(append(open[:5:5], more...), idle) }
	result := func(b ...byte) i2ctest.IO { return io([]byte{2}, b...) }
	// Not ready, the first result without a value, then 400 ppm and more.
	got := virtual(t, ccs811, nil, with(status(0x90), status(0x98), result(0, 0, 0, 0, 0x98, 0, 0, 0), status(0x98), result(0x02, 0x64, 0x00, 0x2b, 0x98, 0, 0, 0))...)
	want(t, got, map[string]float64{"co2_ppm": 612, "tvoc_ppb": 43})
	refused(t, ccs811, nil, "the heater's current is out of range", with(status(0x91), io([]byte{0xe0}, 0x10))...)
	refused(t, ccs811, nil, "no valid program", open[0], reset, status(0x00))
	refused(t, ccs811, nil, "a ccs811 has 0x81", io([]byte{0x20}, 0x00))
	// Back in its boot loader after a power cut: opened anew at once.
	ops := append(with(status(0x10)), open...)
	want(t, virtual(t, ccs811, nil, append(ops, status(0x98), result(0x02, 0x64, 0x00, 0x2b, 0x98, 0, 0, 0), idle)...), map[string]float64{"co2_ppm": 612, "tvoc_ppb": 43})
}
