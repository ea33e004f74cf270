package drivers

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"fieldagent/sensors"
)

type simulatedOptions struct {
	Value     string        `config:"value" default:"temperature_celsius" pattern:"^[a-z][a-z0-9_]{0,62}$" doc:"Name of the value."`
	Wave      string        `config:"wave" default:"sine" enum:"sine,square,ramp,walk,constant" doc:"Shape."`
	Mean      float64       `config:"mean" default:"20" doc:"Middle of the shape."`
	Amplitude float64       `config:"amplitude" default:"5" min:"0" doc:"How far it goes up and down."`
	Period    time.Duration `config:"period" default:"10m" min:"1s" doc:"Length of one wave."`
	Noise     float64       `config:"noise" default:"0" min:"0" doc:"Standard deviation of the noise."`
	Seed      uint64        `config:"seed" default:"1" doc:"Of noise and walk: the same seed gives the same values."`
	FailEvery int           `config:"fail_every" default:"0" min:"0" doc:"Every n-th reading fails; 0 none."`
	HangAfter int           `config:"hang_after" default:"0" min:"0" doc:"This reading and all after it hang; 0 never."`
	Delay     time.Duration `config:"delay" default:"0s" doc:"How long a reading takes."`
}

// ValueNames is the one that was chosen.
func (o *simulatedOptions) ValueNames() []string { return []string{o.Value} }

var simulated = sensors.Driver{
	Name:    "simulated",
	Summary: "waveforms, noise and faults on demand, for trying things out without hardware",
	Options: func() any { return &simulatedOptions{} },
	Quantities: []sensors.Quantity{
		{Name: "temperature_celsius", Unit: "°C", DeviceClass: "temperature", StateClass: "measurement"},
	},
	AnyValue: true,
	Example:  "{name: pretend, driver: simulated, wave: sine, mean: 21, amplitude: 4, every: 5s}",
	Open: func(_ context.Context, opts any, _ sensors.Board) (sensors.Sensor, error) {
		o := opts.(*simulatedOptions)
		return &simulatedSensor{o: o, rnd: rand.New(rand.NewPCG(o.Seed, 0)), start: time.Now()}, nil
	},
}

type simulatedSensor struct {
	o     *simulatedOptions
	rnd   *rand.Rand
	start time.Time
	reads int
	walk  float64
}

func (s *simulatedSensor) Read(ctx context.Context) ([]sensors.Value, error) {
	s.reads++
	if s.o.HangAfter > 0 && s.reads >= s.o.HangAfter {
		select {} // for ever, whatever ctx says: that is what it is for
	}
	if s.o.Delay > 0 {
		select {
		case <-time.After(s.o.Delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if s.o.FailEvery > 0 && s.reads%s.o.FailEvery == 0 {
		return nil, errors.New("simulated failure (fail_every)")
	}
	phase := math.Mod(time.Since(s.start).Seconds()/s.o.Period.Seconds(), 1)
	x := 0.0
	switch s.o.Wave {
	case "sine":
		x = math.Sin(2 * math.Pi * phase)
	case "square":
		x = 1
		if phase >= 0.5 {
			x = -1
		}
	case "ramp":
		x = 2*phase - 1
	case "walk":
		s.walk = max(-1, min(1, s.walk+s.rnd.NormFloat64()/20))
		x = s.walk
	}
	v := s.o.Mean + s.o.Amplitude*x + s.o.Noise*s.rnd.NormFloat64()
	return []sensors.Value{{Name: s.o.Value, Number: v, Precision: 2}}, nil
}
