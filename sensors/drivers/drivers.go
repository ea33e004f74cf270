// Package drivers has one file for each driver, and the list of them.
//
// To add one: a file with its options, its Driver value and its Open; a line in All; a test on recorded traffic; an example.
package drivers

import (
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
)

// All are the drivers of this agent, in the order in which `fieldagent drivers` shows them.
var All = []sensors.Driver{host, kernel, simulated, bme280, bmp280, bmp180, sht3x, sht4x, si7021, hdc302xDriver, aht20Driver, am2320, lm75, tmp102, mcp9808Driver, ds18b20, bh1750, scd4x, sgp30, ccs811, ads1x15,
	ina219, ina226, ina3221, adxl345, veml7700}

// Union is config.Options.Union for sensors: it returns the options of a driver by its name.
func Union(key, name string) (any, []string) {
	if key != "driver" {
		return nil, nil
	}
	var known []string
	for _, d := range All {
		if d.Name == name {
			return d.Options(), nil
		}
		known = append(known, d.Name)
	}
	return nil, known
}

// bus is common to the options of all chips on I2C.
type bus struct {
	Bus string `config:"bus" default:"i2c-1" pattern:"^[A-Za-z0-9]" doc:"I2C bus: i2c-1 as below /dev; i2c-1/0x70/3, a channel of a multiplexer; or the name of an adapter."`
}

func (b bus) at(addr uint16) sensors.Place { return sensors.Place{Bus: b.Bus, Address: addr} }

// dev returns the chip at a place.
func dev(b sensors.Board, o sensors.Placed) (i2c.Dev, error) {
	at := o.Place()
	bus, err := b.I2C(at.Bus)
	return i2c.Dev{Bus: bus, Addr: at.Address}, err
}

// addresses returns those from first to last.
func addresses(first, last uint16) []uint16 {
	var out []uint16
	for a := first; a <= last; a++ {
		out = append(out, a)
	}
	return out
}

// word reads a register of 16 bits, the high byte first.
func word(d i2c.Dev, register byte) (uint16, error) {
	var b [2]byte
	err := d.Tx([]byte{register}, b[:])
	return binary.BigEndian.Uint16(b[:]), err
}

// pause waits without holding the bus.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Quantities that many chips have.
func celsius(min, max float64) sensors.Quantity {
	return sensors.Quantity{Name: "temperature_celsius", Unit: "°C", DeviceClass: "temperature", StateClass: "measurement", Min: min, Max: max}
}

var (
	humidity = sensors.Quantity{Name: "relative_humidity_percent", Unit: "%", DeviceClass: "humidity", StateClass: "measurement", Min: 0, Max: 100}
	co2      = sensors.Quantity{Name: "co2_ppm", Unit: "ppm", DeviceClass: "carbon_dioxide", StateClass: "measurement", Min: 1, Max: 60000}
	tvoc     = sensors.Quantity{Name: "tvoc_ppb", Unit: "ppb", DeviceClass: "volatile_organic_compounds_parts", StateClass: "measurement", Min: 0, Max: 60000}
)

func temperature(t float64, precision int) sensors.Value {
	return sensors.Value{Name: "temperature_celsius", Number: t, Precision: precision}
}

// relativeHumidity is cut at 0 and 100 %: by their formulas many chips return a little more when air is at its dew point.
func relativeHumidity(h float64, precision int) sensors.Value {
	if h >= -6 && h <= 119 {
		h = max(0, min(100, h))
	}
	return sensors.Value{Name: "relative_humidity_percent", Number: h, Precision: precision}
}

func readString(files fs.FS, name string) (string, error) {
	b, err := fs.ReadFile(files, name)
	return strings.TrimSpace(string(b)), err
}

func readFloat(files fs.FS, name string) (float64, error) {
	s, err := readString(files, name)
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0, fmt.Errorf("/%s: %q is no number", name, s)
	}
	return v, nil
}
