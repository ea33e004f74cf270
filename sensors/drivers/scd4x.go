package drivers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
)

type scd4xOptions struct {
	bus             `config:",inline"`
	Altitude        uint16 `config:"altitude" default:"0" min:"0" max:"3000" doc:"Height above the sea in metres: thin air holds fewer molecules."`
	SelfCalibration bool   `config:"self_calibration" default:"true" doc:"The lowest value of a week counts as fresh air, 400 ppm; false where there is never fresh air."`
}

func (o *scd4xOptions) Place() sensors.Place { return o.at(0x62) }

var scd4x = sensors.Driver{
	Name:       "scd4x",
	Summary:    "Sensirion SCD40 and SCD41: CO2, temperature and humidity on I2C, always at 0x62",
	Options:    func() any { return &scd4xOptions{bus: bus{"i2c-1"}, SelfCalibration: true} },
	Quantities: []sensors.Quantity{co2, celsius(-10, 60), humidity},
	Example:    "{name: class-room, driver: scd4x, bus: i2c-1, every: 30s}",
	MinEvery:   5 * time.Second,
	Takes:      8 * time.Second,
	Addresses:  []uint16{0x62},
	Open:       openSCD4x,
}

type scd4xSensor struct{ dev i2c.Dev }

// openSCD4x stops what the chip does (500 ms), checks that it is one by the checksums of its serial number, and starts it: a measurement every 5 s (SCD4x data sheet, sections 3.5, 3.6 and 3.9).
func openSCD4x(ctx context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
	o := opts.(*scd4xOptions)
	d, err := dev(b, o)
	if err != nil {
		return nil, err
	}
	if err := d.Tx(withWords(0x3f86), nil); err != nil {
		return nil, err
	}
	if err := pause(ctx, 500*time.Millisecond); err != nil {
		return nil, err
	}
	if _, err := words(ctx, d, withWords(0x3682), time.Millisecond, 3); err != nil {
		return nil, fmt.Errorf("serial number: %w", err)
	}
	calibrate := uint16(0)
	if o.SelfCalibration {
		calibrate = 1
	}
	for _, command := range [][]byte{withWords(0x2427, o.Altitude), withWords(0x2416, calibrate), withWords(0x21b1)} {
		if err := d.Tx(command, nil); err != nil {
			return nil, err
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return nil, err
		}
	}
	return scd4xSensor{d}, nil
}

// Read waits until the next measurement is ready, off the bus, and reads it.
func (s scd4xSensor) Read(ctx context.Context) ([]sensors.Value, error) {
	for {
		ready, err := words(ctx, s.dev, withWords(0xe4b8), time.Millisecond, 1)
		if err != nil {
			return nil, err
		}
		if ready[0]&0x07ff != 0 {
			break
		}
		if err := pause(ctx, 250*time.Millisecond); err != nil {
			return nil, errors.New("the chip does not measure; was its power interrupted?")
		}
	}
	w, err := words(ctx, s.dev, withWords(0xec05), time.Millisecond, 3)
	if err != nil {
		return nil, err
	}
	return []sensors.Value{{Name: "co2_ppm", Number: float64(w[0])}, temperature(-45+175*float64(w[1])/65535, 2), relativeHumidity(100*float64(w[2])/65535, 2)}, nil
}

// Close stops measuring: the chip needs 15 mA while it does.
func (s scd4xSensor) Close() error { return s.dev.Tx(withWords(0x3f86), nil) }
