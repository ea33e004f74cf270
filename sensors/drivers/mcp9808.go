package drivers

import (
	"context"

	"fieldagent/sensors"

	"periph.io/x/devices/v3/mcp9808"
)

type mcp9808Options struct {
	bus     `config:",inline"`
	Address uint16 `config:"address" default:"0x18" min:"0x18" max:"0x1f" doc:"Address on the bus."`
}

func (o *mcp9808Options) Place() sensors.Place { return o.at(o.Address) }

// Manufacturer 0x0054 and device 0x04, any revision (DS25095A, sections 5.1.5 and 5.1.6).
var mcp9808Driver = sensors.Driver{
	Name:       "mcp9808",
	Summary:    "Microchip MCP9808: temperature on I2C",
	Options:    func() any { return &mcp9808Options{bus{"i2c-1"}, 0x18} },
	Quantities: []sensors.Quantity{celsius(-40, 125)},
	Example:    "{name: fridge, driver: mcp9808, bus: i2c-1, address: 0x18, every: 30s}",
	Addresses:  addresses(0x18, 0x1f),
	IDs:        []sensors.ID{{Write: []byte{6}, Value: []byte{0x00, 0x54}}, {Write: []byte{7}, Value: []byte{0x04, 0}, Mask: []byte{0xff, 0}}},
	Open: func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		d, err := dev(b, opts.(*mcp9808Options))
		if err != nil {
			return nil, err
		}
		chip, err := mcp9808.New(d.Bus, &mcp9808.Opts{Addr: int(d.Addr), Res: mcp9808.Maximum})
		return mcp9808Sensor{chip}, err
	},
}

type mcp9808Sensor struct{ chip *mcp9808.Dev }

// Read reads what the chip measured last; it measures all the time, four times a second, after a power cut too.
func (s mcp9808Sensor) Read(context.Context) ([]sensors.Value, error) {
	t, err := s.chip.SenseTemp()
	if err != nil {
		return nil, err
	}
	return []sensors.Value{temperature(t.Celsius(), 4)}, nil
}
