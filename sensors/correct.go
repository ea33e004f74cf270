package sensors

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// plausible refuses what cannot be: no number, or outside the driver's range.
func (o *one) plausible(values []Value) error {
	for _, v := range values {
		if v.Text != "" {
			continue
		}
		if math.IsNaN(v.Number) || math.IsInf(v.Number, 0) {
			return fmt.Errorf("%s is no number: broken sensor or wire", v.Name)
		}
		for _, q := range o.driver.Quantities {
			if q.Name == v.Name && q.Min < q.Max && (v.Number < q.Min || v.Number > q.Max) {
				return fmt.Errorf("%s is %g, outside %g to %g: broken sensor, wrong chip or bad wire", v.Name, v.Number, q.Min, q.Max)
			}
		}
	}
	return nil
}

// calibrate corrects each value: × scale + offset.
func (o *one) calibrate(values []Value) []Value {
	for i := range values {
		v := &values[i]
		if c, ok := o.cfg.Calibrate[v.Name]; ok && v.Text == "" {
			v.Number = v.Number*c.Scale + c.Offset
		}
	}
	return values
}

// smooth replaces each value by the mean or median of its last samples.
func (o *one) smooth(values []Value) []Value {
	if o.cfg.Filter != "median" && o.cfg.Filter != "mean" {
		return values
	}
	if o.past == nil {
		o.past = map[string][]float64{}
	}
	for i := range values {
		v := &values[i]
		if v.Text != "" {
			continue
		}
		p := append(o.past[v.Name], v.Number)
		p = p[max(0, len(p)-o.cfg.Samples):]
		o.past[v.Name] = p
		v.Number = middle(o.cfg.Filter, p)
	}
	return values
}

func middle(filter string, p []float64) float64 {
	if filter == "mean" {
		sum := 0.0
		for _, y := range p {
			sum += y
		}
		return sum / float64(len(p))
	}
	s := slices.Sorted(slices.Values(p))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// worth says whether a reading differs enough from the one that was sent last.
func (o *one) worth(values []Value) bool {
	if o.cfg.Deadband <= 0 {
		return true
	}
	same := len(values) == len(o.sent) && time.Since(o.sentAt) < o.cfg.Heartbeat
	for i := range values {
		if !same {
			break
		}
		a, b := values[i], o.sent[i]
		same = a.Name == b.Name && a.Text == b.Text && math.Abs(a.Number-b.Number) < o.cfg.Deadband
	}
	if same {
		return false
	}
	o.sent, o.sentAt = slices.Clone(values), time.Now()
	return true
}
