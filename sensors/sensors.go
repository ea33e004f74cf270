// Package sensors says what a sensor, an input, a meter and an output are, and keeps them going.
//
// A Driver opens a Sensor from its options. A Set supervises all configured sensors: it opens each, reads it on a schedule that does not
// drift, reports what came of it, and opens it again after errors, with growing pauses. A sensor that fails or hangs is data; the others go on.
// Sensors on one bus take turns. Lines (inputs, meters, outputs) are held by Watch, Meter and Outputs.
package sensors

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/spi"
)

// Value is one measured quantity. Its name ends in its unit: temperature_celsius.
type Value struct {
	Name      string
	Number    float64
	Text      string // instead of Number, for what is no number
	Exact     string // instead of Number, a number with all its digits, such as a total
	Precision int    // decimals that mean something
}

// Sensor is one opened sensor. It may implement io.Closer.
type Sensor interface {
	// Read measures once. It should honour ctx; a Sensor that does not is left behind when its time is over.
	Read(ctx context.Context) ([]Value, error)
}

// Tended is a Sensor that needs a call between readings too, such as a gas sensor that keeps its baseline only while it measures each second.
type Tended interface {
	// Tend is called every TendEvery after the sensor was opened, never beside Read.
	Tend(ctx context.Context) error
	TendEvery() time.Duration
}

// Quantity describes a value that a driver may return.
type Quantity struct {
	Name        string
	Unit        string  // as Home Assistant writes it: °C, %, hPa
	DeviceClass string  // of Home Assistant; "" none
	StateClass  string  // measurement, total, total_increasing or ""
	Min, Max    float64 // plausible range; equal: any
}

// Driver is a kind of sensor.
type Driver struct {
	Name       string
	Summary    string // one line for people
	Options    func() any
	Quantities []Quantity
	Example    string        // a line of configuration
	AnyValue   bool          // options give names to values that Quantities does not list
	MinEvery   time.Duration // shortest sensible period
	Takes      time.Duration // how long opening or reading may take, where that is longer than the configured timeout
	Addresses  []uint16      // where such a chip can be on I2C
	IDs        []ID          // what it answers; checked before Open
	Open       func(ctx context.Context, opts any, b Board) (Sensor, error)
}

// Board is what sensors are connected to.
type Board interface {
	// I2C returns a bus by name, such as i2c-1. It stays open as long as the board.
	I2C(name string) (i2c.Bus, error)
	// SPI opens a port by name, such as spi0.0. Whoever opens it closes it.
	SPI(name string) (spi.PortCloser, error)
	// Files is the file system that has proc, sys and dev.
	Files() fs.FS
}

// Config is one entry of sensors:. The keys of its driver stand beside these.
type Config struct {
	Name      string                 `config:"name,required" pattern:"^[a-z0-9][a-z0-9_-]{0,62}$" doc:"Name of the sensor; its topic is <root>/sensor/<name>."`
	Driver    string                 `config:"driver,required" doc:"What kind of sensor it is; 'fieldagent drivers' lists them."`
	Every     time.Duration          `config:"every" default:"30s" min:"100ms" max:"24h" doc:"Time from one reading to the next."`
	Timeout   time.Duration          `config:"timeout" default:"5s" min:"10ms" max:"5m" doc:"A reading that takes longer has failed."`
	Offline   string                 `config:"offline" default:"drop" enum:"drop,keep" doc:"What happens to readings while the broker is away: dropped, or kept and sent later at QoS 1."`
	Calibrate map[string]Calibration `config:"calibrate" doc:"Correction by value name, such as temperature_celsius: {offset: -0.5}."`
	Filter    string                 `config:"filter" default:"none" enum:"none,median,mean" doc:"Smooths over the last samples readings."`
	Samples   int                    `config:"samples" default:"3" min:"2" max:"100" doc:"How many readings filter looks at."`
	Deadband  float64                `config:"deadband" default:"0" min:"0" doc:"A reading is sent only when a value changed by at least this; 0 sends all."`
	Heartbeat time.Duration          `config:"heartbeat" default:"5m" min:"1s" max:"24h" doc:"With deadband: a reading is sent at least this often."`
	Options   any                    `union:"driver"`
}

// Calibration corrects a value: value × scale + offset.
type Calibration struct {
	Scale  float64 `config:"scale" default:"1" doc:"Factor."`
	Offset float64 `config:"offset" default:"0" doc:"Added after scaling."`
}

// Reading is what came of one reading. Err is nil or Values is empty.
type Reading struct {
	Sensor string
	At     time.Time
	Values []Value
	Err    error
	State  string // StateOK or StateFailed
}

// States of a sensor.
const (
	StateStarting = "starting"
	StateOK       = "ok"
	StateFailed   = "failed"
)

// SensorState is a sensor as people want to see it.
type SensorState struct {
	Name      string
	Driver    string
	State     string
	Since     time.Time // of State
	Err       string    // the last error, "" when there was none since it is ok
	LastErr   string    // the last error, whatever came after it
	LastErrAt time.Time
	Reads     uint64
	Errors    uint64
}

// ReadOnce opens a sensor, reads it once and closes it. A running Set has its own Read.
func ReadOnce(ctx context.Context, cfg Config, drivers []Driver, b Board) ([]Value, error) {
	o, err := newOne(cfg, drivers, Options{Board: b})
	if err != nil {
		return nil, err
	}
	defer o.close()
	return o.once(ctx)
}

// Check reports what the driver of an entry cannot do, with paths as they stand in the configuration. An unknown driver is somebody else's fault to tell.
func Check(c Config, drivers []Driver, report func(path, message, hint string)) {
	if d, err := find(drivers, c.Driver); err == nil {
		d.check(c, report)
	}
}

func (d Driver) check(c Config, report func(path, message, hint string)) {
	if c.Every != 0 && c.Every < d.MinEvery {
		report("every", fmt.Sprintf("%v is too often", c.Every), fmt.Sprintf("%s needs %v or more", d.Name, d.MinEvery))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Calibrate)) {
		if !d.returns(name) {
			report("calibrate."+name, fmt.Sprintf("%s has no value %q", d.Name, name), "it has "+d.names())
		} else if c.Calibrate[name].Scale == 0 {
			report("calibrate."+name+".scale", "scale 0 makes every value the same", "leave it out, or write the factor, such as 1.02")
		}
	}
}

func (d Driver) returns(name string) bool {
	return d.AnyValue || slices.ContainsFunc(d.Quantities, func(q Quantity) bool { return q.Name == name })
}

func (d Driver) names() string {
	var out []string
	for _, q := range d.Quantities {
		out = append(out, q.Name)
	}
	return strings.Join(out, ", ")
}

func find(drivers []Driver, name string) (Driver, error) {
	for _, d := range drivers {
		if d.Name == name {
			return d, nil
		}
	}
	return Driver{}, fmt.Errorf("driver %q is not known; see fieldagent drivers", name)
}
