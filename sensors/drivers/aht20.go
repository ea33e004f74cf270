package drivers

import (
	"context"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/physic"
	"periph.io/x/devices/v3/aht20"
)

type aht20Options struct {
	bus `config:",inline"`
}

func (o *aht20Options) Place() sensors.Place { return o.at(0x38) }

var aht20Driver = sensors.Driver{
	Name:       "aht20",
	Summary:    "ASAIR AHT20, AHT21, AHT25 and DHT20: temperature and humidity on I2C, always at 0x38",
	Options:    func() any { return &aht20Options{bus{"i2c-1"}} },
	Quantities: []sensors.Quantity{celsius(-40, 85), humidity},
	Example:    "{name: hall, driver: aht20, bus: i2c-1, every: 30s}",
	Addresses:  []uint16{0x38},
	Open: func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		d, err := dev(b, opts.(*aht20Options))
		if err != nil {
			return nil, err
		}
		chip, err := aht20.NewI2C(d.Bus, nil)
		return aht20Sensor{chip}, err
	},
}

type aht20Sensor struct{ chip *aht20.Dev }

// Read measures once, 80 ms; the checksum is checked. A chip that lost its power says that it is not initialized, and is opened anew.
func (s aht20Sensor) Read(context.Context) ([]sensors.Value, error) {
	var e physic.Env
	if err := s.chip.Sense(&e); err != nil {
		if _, lost := err.(*aht20.NotInitializedError); lost {
			return nil, sensors.ErrReset
		}
		return nil, err
	}
	return []sensors.Value{temperature(e.Temperature.Celsius(), 2), relativeHumidity(float64(e.Humidity)/float64(physic.PercentRH), 2)}, nil
}
