package drivers

import (
	"context"
	"errors"
	"time"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
)

type veml7700Options struct {
	bus `config:",inline"`
}

func (o *veml7700Options) Place() sensors.Place { return o.at(0x10) }

// The device id is 0x81 in the low byte, which comes first (VEML7700 data sheet, command code 7).
var veml7700 = sensors.Driver{
	Name:       "veml7700",
	Summary:    "Vishay VEML7700: light on I2C, from night to sunlight, always at 0x10",
	Options:    func() any { return &veml7700Options{bus{"i2c-1"}} },
	Quantities: []sensors.Quantity{illuminance},
	Example:    "{name: sky, driver: veml7700, bus: i2c-1, every: 30s}",
	MinEvery:   2 * time.Second,
	Addresses:  []uint16{0x10},
	IDs:        []sensors.ID{{Write: []byte{0x07}, Value: []byte{0x81, 0}, Mask: []byte{0xff, 0}}},
	Open: func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		d, err := dev(b, opts.(*veml7700Options))
		return &veml7700Sensor{dev: d, step: 2}, err
	},
}

// veml7700Steps are gain (bits 12:11) and integration time (bits 9:6) of ALS_CONF from the least sensitive to the most, with the lux of one count: 0.0042 × 800 ms/time × 2/gain (data sheet, table of resolutions).
var veml7700Steps = []struct {
	config uint16
	time   time.Duration
	lux    float64
}{
	{2<<11 | 12<<6, 25 * time.Millisecond, 2.1504}, // gain 1/8
	{2<<11 | 8<<6, 50 * time.Millisecond, 1.0752},
	{2<<11 | 0<<6, 100 * time.Millisecond, 0.5376},
	{3<<11 | 0<<6, 100 * time.Millisecond, 0.2688}, // gain 1/4
	{0<<11 | 0<<6, 100 * time.Millisecond, 0.0672}, // gain 1
	{1<<11 | 0<<6, 100 * time.Millisecond, 0.0336}, // gain 2
	{1<<11 | 2<<6, 400 * time.Millisecond, 0.0084},
	{1<<11 | 3<<6, 800 * time.Millisecond, 0.0042},
}

type veml7700Sensor struct {
	dev  i2c.Dev
	step int // where the last reading ended
}

// Read measures, and again with another gain and time until the count is neither small nor near the end, as Vishay's application note 84323 says.
func (s *veml7700Sensor) Read(ctx context.Context) ([]sensors.Value, error) {
	for range 2 * len(veml7700Steps) {
		n, err := s.count(ctx)
		switch {
		case err != nil:
			return nil, err
		case n > 10000 && s.step > 0:
			s.step--
		case n < 100 && s.step < len(veml7700Steps)-1:
			s.step++
		case n == 0xffff:
			return nil, errors.New("brighter than the chip can measure (140000 lx), or no chip")
		default:
			return []sensors.Value{{Name: "illuminance_lux", Number: s.lux(n), Precision: 2}}, nil
		}
	}
	return nil, errors.New("the light changes faster than it can be measured")
}

// count switches the chip on, waits for one integration and the 4 ms it needs to start, reads ALS (command code 4, low byte first) and switches it off.
func (s *veml7700Sensor) count(ctx context.Context) (uint16, error) {
	step := veml7700Steps[s.step]
	if err := s.dev.Tx([]byte{0x00, byte(step.config), byte(step.config >> 8)}, nil); err != nil {
		return 0, err
	}
	if err := pause(ctx, step.time+step.time/5+4*time.Millisecond); err != nil {
		return 0, err
	}
	var b [2]byte
	if err := s.dev.Tx([]byte{0x04}, b[:]); err != nil {
		return 0, err
	}
	return uint16(b[1])<<8 | uint16(b[0]), s.dev.Tx([]byte{0x00, byte(step.config) | 1, byte(step.config >> 8)}, nil)
}

// lux corrects the bend that the application note gives for the small gains: 1 % at 100 lx, 8 % at 1000, the half at 10000.
func (s *veml7700Sensor) lux(n uint16) float64 {
	x := float64(n) * veml7700Steps[s.step].lux
	if s.step > 3 {
		return x
	}
	return (((6.0135e-13*x-9.3924e-9)*x+8.1488e-5)*x + 1.0023) * x
}
