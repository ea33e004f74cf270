package drivers

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"fieldagent/sensors"
)

type ds18b20Options struct {
	ID string `config:"id,required" pattern:"^(10|22|28|3b|42)-[0-9a-f]{12}$" doc:"1-wire id, such as 28-0316a2795abc; fieldagent scan shows them."`
}

var ds18b20 = sensors.Driver{
	Name:       "ds18b20",
	Summary:    "Maxim DS18B20, DS18S20, DS1822, DS1825 and DS28EA00: temperature on 1-wire, through the kernel (dtoverlay=w1-gpio)",
	Options:    func() any { return &ds18b20Options{} },
	Quantities: []sensors.Quantity{celsius(-55, 125)},
	Example:    "{name: boiler, driver: ds18b20, id: 28-0316a2795abc, every: 30s}",
	MinEvery:   time.Second,
	Open: func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		s := ds18b20Sensor{opts.(*ds18b20Options).ID, b.Files()}
		_, err := fs.Stat(s.files, "sys/bus/w1/devices/"+s.id)
		if err == nil {
			return s, nil
		}
		found, _ := fs.Glob(s.files, "sys/bus/w1/devices/[0-9a-f][0-9a-f]-*")
		if len(found) == 0 {
			return nil, errors.New("the kernel sees no 1-wire chip; add dtoverlay=w1-gpio to config.txt, and look at wiring and pull-up (4.7 kΩ)")
		}
		var ids []string
		for _, f := range found {
			ids = append(ids, path.Base(f))
		}
		return nil, fmt.Errorf("1-wire chip %s is not there; there are %s", s.id, strings.Join(ids, ", "))
	},
}

type ds18b20Sensor struct {
	id    string
	files fs.FS
}

// Read has the kernel measure (750 ms). Its w1_slave shows the nine bytes of the scratchpad, whether their checksum is right, and thousandths of a degree (Documentation/w1/slaves/w1_therm.rst).
func (s ds18b20Sensor) Read(context.Context) ([]sensors.Value, error) {
	text, err := readString(s.files, "sys/bus/w1/devices/"+s.id+"/w1_slave")
	if err != nil {
		return nil, fmt.Errorf("1-wire chip %s does not answer: %w", s.id, err)
	}
	first, second, _ := strings.Cut(text, "\n")
	bytes, check, _ := strings.Cut(first, ":")
	pad, err := hex.DecodeString(strings.ReplaceAll(bytes, " ", ""))
	_, milli, found := strings.Cut(second, "t=")
	t, err2 := strconv.Atoi(strings.TrimSpace(milli))
	switch {
	case err != nil || err2 != nil || !found || len(pad) != 9:
		return nil, fmt.Errorf("1-wire chip %s: the kernel's answer is not understood: %q", s.id, text)
	case !strings.HasSuffix(check, "YES"):
		return nil, fmt.Errorf("1-wire chip %s: %w", s.id, errCRC)
	case strings.Trim(string(pad), "\x00") == "":
		return nil, fmt.Errorf("1-wire chip %s: all zeros, whose checksum is right: the data line is shorted to ground", s.id)
	case t == 85000 && pad[6] == 0x0c: // what it holds before the first conversion (DS18B20 data sheet, scratchpad)
		return nil, fmt.Errorf("1-wire chip %s shows 85 °C, its value at power-on: it lost its power while it measured; check supply and pull-up", s.id)
	}
	return []sensors.Value{temperature(float64(t)/1000, 3)}, nil
}
