package drivers

import (
	"context"
	"fmt"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
	"periph.io/x/devices/v3/bmxx80"
)

// bmOptions are those of the Bosch chips; a BMP180 is always at 0x77.
type bmOptions struct {
	bus     `config:",inline"`
	Address uint16 `config:"address" default:"0x76" min:"0x76" max:"0x77" doc:"Address on the bus."`
}

func (o *bmOptions) Place() sensors.Place { return o.at(o.Address) }

type bmp180Options struct {
	bus `config:",inline"`
}

func (o *bmp180Options) Place() sensors.Place { return o.at(0x77) }

var pressure = sensors.Quantity{Name: "pressure_hectopascal", Unit: "hPa", DeviceClass: "atmospheric_pressure", StateClass: "measurement", Min: 300, Max: 1100}

// The chip ids: BST-BME280-DS002 section 5.4.1, BST-BMP280-DS001 section 4.3.1, BST-BMP180-DS000 section 4.
var (
	bme280 = sensors.Driver{
		Name:       "bme280",
		Summary:    "Bosch BME280: temperature, humidity and pressure on I2C",
		Options:    func() any { return &bmOptions{bus{"i2c-1"}, 0x76} },
		Quantities: []sensors.Quantity{celsius(-40, 85), humidity, pressure},
		Example:    "{name: cabinet, driver: bme280, bus: i2c-1, address: 0x76, every: 10s}",
		Addresses:  []uint16{0x76, 0x77},
		IDs:        []sensors.ID{{Write: []byte{0xd0}, Value: []byte{0x60}}},
		Open:       openBM(true),
	}
	bmp280 = sensors.Driver{
		Name:       "bmp280",
		Summary:    "Bosch BMP280: temperature and pressure on I2C",
		Options:    func() any { return &bmOptions{bus{"i2c-1"}, 0x76} },
		Quantities: []sensors.Quantity{celsius(-40, 85), pressure},
		Example:    "{name: roof, driver: bmp280, bus: i2c-1, address: 0x77, every: 30s}",
		Addresses:  []uint16{0x76, 0x77},
		IDs:        []sensors.ID{{Write: []byte{0xd0}, Value: []byte{0x58}}},
		Open:       openBM(false),
	}
	bmp180 = sensors.Driver{
		Name:       "bmp180",
		Summary:    "Bosch BMP180 and BMP085: temperature and pressure on I2C",
		Options:    func() any { return &bmp180Options{bus{"i2c-1"}} },
		Quantities: []sensors.Quantity{celsius(-40, 85), pressure},
		Example:    "{name: attic, driver: bmp180, bus: i2c-1, every: 30s}",
		Addresses:  []uint16{0x77},
		IDs:        []sensors.ID{{Write: []byte{0xd0}, Value: []byte{0x55}}},
		Open:       openBM(false),
	}
)

func openBM(humid bool) func(context.Context, any, sensors.Board) (sensors.Sensor, error) {
	return func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		d, err := dev(b, opts.(sensors.Placed))
		if err != nil {
			return nil, err
		}
		chip, err := bmxx80.NewI2C(d.Bus, d.Addr, &bmxx80.Opts{Temperature: bmxx80.O2x, Pressure: bmxx80.O4x, Humidity: bmxx80.O2x})
		if err != nil {
			return nil, err
		}
		return &bmSensor{chip, d, humid}, nil
	}
}

type bmSensor struct {
	chip  *bmxx80.Dev
	dev   i2c.Dev
	humid bool
}

// Read measures once. A BME280 that lost its power forgets that humidity is wanted, and would go on with a made-up value: its ctrl_hum (0xf2) is read first.
func (s *bmSensor) Read(context.Context) ([]sensors.Value, error) {
	if s.humid {
		var ctrl [1]byte
		if err := s.dev.Tx([]byte{0xf2}, ctrl[:]); err != nil {
			return nil, err
		}
		if ctrl[0]&7 != byte(bmxx80.O2x) {
			return nil, fmt.Errorf("ctrl_hum is %#x: %w", ctrl[0], sensors.ErrReset)
		}
	}
	var e physic.Env
	if err := s.chip.Sense(&e); err != nil {
		return nil, err
	}
	out := []sensors.Value{temperature(e.Temperature.Celsius(), 2)}
	if s.humid {
		out = append(out, relativeHumidity(float64(e.Humidity)/float64(physic.PercentRH), 2))
	}
	return append(out, sensors.Value{Name: "pressure_hectopascal", Number: float64(e.Pressure) / float64(100*physic.Pascal), Precision: 2}), nil
}
