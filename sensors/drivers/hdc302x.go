package drivers

import (
	"context"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/physic"
	"periph.io/x/devices/v3/hdc302x"
)

type hdc302xOptions struct {
	bus     `config:",inline"`
	Address uint16 `config:"address" default:"0x44" min:"0x44" max:"0x47" doc:"Address on the bus."`
}

func (o *hdc302xOptions) Place() sensors.Place { return o.at(o.Address) }

// The manufacturer's id is 0x3000 (SNAS778, command table).
var hdc302xDriver = sensors.Driver{
	Name:       "hdc302x",
	Summary:    "Texas Instruments HDC3020, HDC3021 and HDC3022: temperature and humidity on I2C",
	Options:    func() any { return &hdc302xOptions{bus{"i2c-1"}, 0x44} },
	Quantities: []sensors.Quantity{celsius(-40, 125), humidity},
	Example:    "{name: green-house, driver: hdc302x, bus: i2c-1, address: 0x44, every: 30s}",
	Addresses:  addresses(0x44, 0x47),
	IDs:        []sensors.ID{{Write: []byte{0x37, 0x81}, Value: []byte{0x30, 0x00}}},
	Open: func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		d, err := dev(b, opts.(*hdc302xOptions))
		if err != nil {
			return nil, err
		}
		chip, err := hdc302x.NewI2C(d.Bus, d.Addr, hdc302x.RateHertz)
		return &hdc302xSensor{chip}, err
	},
}

type hdc302xSensor struct{ chip *hdc302x.Dev }

// Read reads what the chip measured last; it measures each second by itself. One that lost its power does not measure, and does not answer.
func (s *hdc302xSensor) Read(context.Context) ([]sensors.Value, error) {
	var e physic.Env
	if err := s.chip.Sense(&e); err != nil {
		return nil, err
	}
	return []sensors.Value{temperature(e.Temperature.Celsius(), 2), relativeHumidity(float64(e.Humidity)/float64(physic.PercentRH), 2)}, nil
}

// Close lets the chip sleep.
func (s *hdc302xSensor) Close() error { return s.chip.Halt() }
