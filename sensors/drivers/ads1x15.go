package drivers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
)

type ads1x15Options struct {
	bus      `config:",inline"`
	Address  uint16           `config:"address" default:"0x48" min:"0x48" max:"0x4b" doc:"Address on the bus."`
	Channels []ads1x15Channel `config:"channels" doc:"What is connected: input, and how its volts become a value, such as {input: '0', value: pressure_bar, scale: 2.5, offset: -1.25}; the volts of all four when not given."`
}

type ads1x15Channel struct {
	Input  string  `config:"input,required" enum:"0,1,2,3,0-1,0-3,1-3,2-3" doc:"Input, or the difference of two."`
	Range  string  `config:"range" default:"4.096" enum:"6.144,4.096,2.048,1.024,0.512,0.256" doc:"Largest voltage that is measured; smaller is finer. The supply is the limit all the same."`
	Value  string  `config:"value" pattern:"^[a-z][a-z0-9_]{0,62}$" doc:"Name of the value, with its unit at the end; voltage<input>_volts when not given."`
	Scale  float64 `config:"scale" default:"1" doc:"Units for each volt."`
	Offset float64 `config:"offset" default:"0" doc:"Value at 0 V."`
	Digits int     `config:"digits" default:"4" min:"0" max:"9" doc:"Decimals that mean something."`
	Min    float64 `config:"min" default:"0" doc:"A smaller value is an error, such as a broken 4-20 mA loop. Only with max."`
	Max    float64 `config:"max" default:"0" doc:"A larger value is an error."`
}

func (o *ads1x15Options) Place() sensors.Place { return o.at(o.Address) }

// ValueNames are those of the channels.
func (o *ads1x15Options) ValueNames() (names []string) {
	for _, c := range o.Channels {
		names = append(names, c.name())
	}
	return names
}

// Check gives every channel a name of its own.
func (o *ads1x15Options) Check(report func(path, message, hint string)) {
	seen := map[string]bool{}
	for i, c := range o.Channels {
		at := fmt.Sprintf("channels[%d]", i)
		if seen[c.name()] {
			report(at, fmt.Sprintf("two channels give %s", c.name()), "give each a value of its own")
		}
		seen[c.name()] = true
		if c.Scale == 0 {
			report(at+".scale", "scale 0 makes every value the same", "units for each volt")
		}
	}
}

func (c ads1x15Channel) name() string {
	if c.Value != "" {
		return c.Value
	}
	return numbered("voltage_volts", c.Input)
}

var ads1x15 = sensors.Driver{
	Name:       "ads1x15",
	Summary:    "Texas Instruments ADS1015 and ADS1115: four analog inputs on I2C, scaled to any unit",
	Options:    func() any { return &ads1x15Options{bus: bus{"i2c-1"}, Address: 0x48} },
	Quantities: ads1x15Quantities(),
	Example:    "{name: tank, driver: ads1x15, bus: i2c-1, address: 0x48, every: 10s, channels: [{input: '0', value: level_metres, scale: 1.25, offset: -0.5, min: -0.1, max: 5}, {input: '2-3', range: '0.256'}]}",
	AnyValue:   true,
	Addresses:  addresses(0x48, 0x4b),
	Open: func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		o := opts.(*ads1x15Options)
		d, err := dev(b, o)
		channels := o.Channels
		for n := 0; len(o.Channels) == 0 && n < 4; n++ {
			channels = append(channels, ads1x15Channel{Input: strconv.Itoa(n), Range: "4.096", Scale: 1, Digits: 4})
		}
		return ads1x15Sensor{d, channels}, err
	},
}

func ads1x15Quantities() []sensors.Quantity {
	var out []sensors.Quantity
	for _, n := range []string{"0", "1", "2", "3"} {
		out = append(out, sensors.Quantity{Name: numbered("voltage_volts", n), Unit: "V", DeviceClass: "voltage", StateClass: "measurement", Min: -6.144, Max: 6.144})
	}
	return out
}

// Codes of the multiplexer and of the gain (SBAS444, config register, bits 14:12 and 11:9).
var (
	ads1x15Inputs = map[string]uint16{"0-1": 0, "0-3": 1, "1-3": 2, "2-3": 3, "0": 4, "1": 5, "2": 6, "3": 7}
	ads1x15Gains  = map[string]uint16{"6.144": 0, "4.096": 1, "2.048": 2, "1.024": 3, "0.512": 4, "0.256": 5}
)

type ads1x15Sensor struct {
	dev      i2c.Dev
	channels []ads1x15Channel
}

// Read measures one channel after the other.
func (s ads1x15Sensor) Read(ctx context.Context) ([]sensors.Value, error) {
	var out []sensors.Value
	for _, c := range s.channels {
		v, err := s.measure(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("input %s: %w", c.Input, err)
		}
		out = append(out, v)
	}
	return out, nil
}

// measure starts one conversion (bit 15; single shot, comparator off; rate 4 is 128 a second in an ADS1115, 1600 in an ADS1015) and waits until the chip says that it has ended.
// The chip's clock may be 10 % slow: who only waits may read the channel before.
func (s ads1x15Sensor) measure(ctx context.Context, c ads1x15Channel) (v sensors.Value, err error) {
	config := 0x8000 | ads1x15Inputs[c.Input]<<12 | ads1x15Gains[c.Range]<<9 | 0x0100 | 4<<5 | 3
	if err := s.dev.Tx([]byte{1, byte(config >> 8), byte(config)}, nil); err != nil {
		return v, err
	}
	for range 10 {
		if err := pause(ctx, 8*time.Millisecond); err != nil {
			return v, err
		}
		now, err := word(s.dev, 1)
		if err != nil {
			return v, err
		}
		if now|0x8000 != config {
			return v, fmt.Errorf("the chip is set to %#x instead of %#x: its power was interrupted, another program uses it, or it is no ADS1x15", now, config)
		}
		if now&0x8000 == 0 {
			continue
		}
		raw, err := word(s.dev, 0)
		if err != nil {
			return v, err
		}
		return c.value(int16(raw))
	}
	return v, errors.New("the conversion does not end")
}

// value makes a value of 32768ths of the range; an ADS1015 has zeros in the lowest four bits.
func (c ads1x15Channel) value(raw int16) (v sensors.Value, err error) {
	full, _ := strconv.ParseFloat(c.Range, 64)
	if raw >= 0x7ff0 || raw == -0x8000 {
		return v, fmt.Errorf("at the end of its range of ±%s V: choose a larger range, or look at the wiring", c.Range)
	}
	x := float64(raw)/32768*full*c.Scale + c.Offset
	if c.Min < c.Max && (x < c.Min || x > c.Max) {
		return v, fmt.Errorf("%s is %g, outside %g to %g (min, max): broken wire?", c.name(), x, c.Min, c.Max)
	}
	return sensors.Value{Name: c.name(), Number: x, Precision: c.Digits}, nil
}
