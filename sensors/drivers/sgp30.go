package drivers

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
)

type sgp30Options struct {
	bus `config:",inline"`
}

func (o *sgp30Options) Place() sensors.Place { return o.at(0x58) }

var sgp30 = sensors.Driver{
	Name:       "sgp30",
	Summary:    "Sensirion SGP30: volatile organic compounds and the CO2 they stand for, on I2C, always at 0x58; keeps its baseline across restarts",
	Options:    func() any { return &sgp30Options{bus{"i2c-1"}} },
	Quantities: []sensors.Quantity{co2, tvoc},
	Example:    "{name: kitchen, driver: sgp30, bus: i2c-1, every: 30s}",
	MinEvery:   time.Second,
	Takes:      20 * time.Second,
	Addresses:  []uint16{0x58},
	Open:       openSGP30,
}

// Times of the data sheet, sections 3.2 and 3.3: 15 s of fixed values after the start; a baseline is good after 12 h, or when an older one was restored; an old one for 7 days.
const (
	sgp30Warm    = 15 * time.Second
	sgp30Learns  = 12 * time.Hour
	sgp30Save    = time.Hour
	sgp30Forgets = 7 * 24 * time.Hour
)

type sgp30Sensor struct {
	dev    i2c.Dev
	memory sensors.Memory
	serial uint64
	began  time.Time
	saved  time.Time // or when saving begins
	warm   bool
	air    [2]uint16 // CO2 in ppm, TVOC in ppb
	at     time.Time
}

// sgp30Baseline is what is kept: of one chip, and for a week.
type sgp30Baseline struct {
	Serial    uint64    `json:"serial"`
	CO2, TVOC uint16    // as the chip returns them
	At        time.Time `json:"at"`
}

func openSGP30(ctx context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
	d, err := dev(b, opts.(*sgp30Options))
	if err != nil {
		return nil, err
	}
	s := &sgp30Sensor{dev: d, began: time.Now()}
	s.memory, _ = b.(sensors.Memory)
	feature, err := words(ctx, d, withWords(0x202f), 10*time.Millisecond, 1)
	if err != nil {
		return nil, err
	}
	if feature[0]>>12 != 0 || feature[0]&0xff < 0x20 {
		return nil, fmt.Errorf("0x58 answers with feature set %#x: not an SGP30", feature[0])
	}
	serial, err := words(ctx, d, withWords(0x3682), time.Millisecond, 3)
	if err != nil {
		return nil, err
	}
	s.serial = uint64(serial[0])<<32 | uint64(serial[1])<<16 | uint64(serial[2])
	if err := d.Tx(withWords(0x2003), nil); err != nil { // sgp30_iaq_init
		return nil, err
	}
	if err := pause(ctx, 10*time.Millisecond); err != nil {
		return nil, err
	}
	s.saved = s.began.Add(sgp30Learns - sgp30Save)
	if old := s.kept(); old != nil {
		// sgp30_set_iaq_baseline takes them in the other order than sgp30_get_iaq_baseline returns them.
		if err := d.Tx(withWords(0x201e, old.TVOC, old.CO2), nil); err != nil {
			return nil, err
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return nil, err
		}
		s.saved = s.began
	}
	return s, nil
}

// kept is this chip's baseline of the last week, nil when there is none.
func (s *sgp30Sensor) kept() *sgp30Baseline {
	if s.memory == nil {
		return nil
	}
	raw, err := s.memory.Load("baseline")
	var b sgp30Baseline
	if err != nil || json.Unmarshal(raw, &b) != nil || b.Serial != s.serial || b.CO2 == 0 && b.TVOC == 0 {
		return nil
	}
	if age := time.Since(b.At); age < 0 || age > sgp30Forgets {
		return nil
	}
	return &b
}

// TendEvery is the second that the chip's own algorithm counts in.
func (s *sgp30Sensor) TendEvery() time.Duration { return time.Second }

// Tend measures (12 ms), and keeps the baseline now and then.
func (s *sgp30Sensor) Tend(ctx context.Context) error {
	w, err := words(ctx, s.dev, withWords(0x2008), 12*time.Millisecond, 2)
	if err != nil {
		return err
	}
	s.air, s.at = [2]uint16{w[0], w[1]}, time.Now()
	if s.memory == nil || time.Since(s.saved) < sgp30Save {
		return nil
	}
	s.saved = time.Now()
	if w, err = words(ctx, s.dev, withWords(0x2015), 10*time.Millisecond, 2); err != nil {
		return err
	}
	raw, err := json.Marshal(sgp30Baseline{Serial: s.serial, CO2: w[0], TVOC: w[1], At: time.Now().UTC()})
	if err != nil {
		return err
	}
	return s.memory.Keep("baseline", raw)
}

// Read returns the newest measurement. In the first 15 s the chip returns 400 ppm and 0 ppb whatever the air: Read waits until they are over.
func (s *sgp30Sensor) Read(ctx context.Context) ([]sensors.Value, error) {
	for !s.warm {
		if err := s.Tend(ctx); err != nil {
			return nil, err
		}
		if s.warm = time.Since(s.began) > sgp30Warm; s.warm {
			break
		}
		if err := pause(ctx, time.Second); err != nil {
			return nil, err
		}
	}
	if time.Since(s.at) > 2*time.Second {
		if err := s.Tend(ctx); err != nil {
			return nil, err
		}
	}
	return []sensors.Value{{Name: "co2_ppm", Number: float64(s.air[0])}, {Name: "tvoc_ppb", Number: float64(s.air[1])}}, nil
}
