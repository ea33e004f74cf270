package drivers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
)

// power are the quantities of a channel; n is its number, "" when there is only one.
func power(n string, volts, amperes float64) []sensors.Quantity {
	return []sensors.Quantity{
		{Name: numbered("voltage_volts", n), Unit: "V", DeviceClass: "voltage", StateClass: "measurement", Min: -0.1, Max: volts},
		{Name: numbered("current_amperes", n), Unit: "A", DeviceClass: "current", StateClass: "measurement", Min: -amperes, Max: amperes},
		{Name: numbered("power_watts", n), Unit: "W", DeviceClass: "power", StateClass: "measurement"},
	}
}

// powerValues makes volts at the load and volts at the shunt a reading. The current is calculated here, not in the chip: its calibration register is lost with its power, and then it says 0 A.
func powerValues(n string, volts, shunt, ohms float64) []sensors.Value {
	a := shunt / ohms
	return []sensors.Value{{Name: numbered("voltage_volts", n), Number: volts, Precision: 3}, {Name: numbered("current_amperes", n), Number: a, Precision: 4}, {Name: numbered("power_watts", n), Number: volts * a, Precision: 3}}
}

// errShunt is returned when more current flows than the chip can measure.
var errShunt = errors.New("more current than the chip can measure with this shunt: use a smaller one")

// triggered writes config to register 0, which starts one measurement, and waits until bit done of a register shows its end.
func triggered(ctx context.Context, d i2c.Dev, config uint16, wait time.Duration, register byte, done uint16) error {
	if err := d.Tx([]byte{0, byte(config >> 8), byte(config)}, nil); err != nil {
		return err
	}
	for range 10 {
		if err := pause(ctx, wait); err != nil {
			return err
		}
		flags, err := word(d, register)
		if err != nil {
			return err
		}
		if flags&done != 0 {
			return nil
		}
		wait = 20 * time.Millisecond
	}
	return fmt.Errorf("the measurement does not end: is it this chip?")
}
