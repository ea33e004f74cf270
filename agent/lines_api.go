package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"fieldagent/queue"
	"fieldagent/sensors"
)

// readLine returns the state of a meter, input or output as JSON, nil when none has that name.
func (a *Agent) readLine(name string) []byte {
	if v, ok := a.meters.now(name); ok {
		return appendReading(nil, a.clock.Now(), v)
	}
	s := a.Status()
	for _, list := range [][]LineStatus{s.Inputs, s.Outputs} {
		for _, l := range list {
			if l.Name == name {
				return mustJSON(l)
			}
		}
	}
	return nil
}

// decodeBody reads a small JSON body strictly.
func decodeBody(w http.ResponseWriter, r *http.Request, v any) bool {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4096))
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		err = d.Decode(v)
	}
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error(), err.Error())
	}
	return err == nil
}

// postOutput is POST /v1/outputs/{name} with {"state":"ON","for":"500ms"}.
func (a *Agent) postOutput(w http.ResponseWriter, r *http.Request) {
	var s setting
	if !decodeBody(w, r, &s) {
		return
	}
	c, err := s.command()
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error(), err.Error())
		return
	}
	name := r.PathValue("name")
	done, err := a.outputs.do(name, c, "API")
	switch {
	case errors.Is(err, sensors.ErrNoOutput):
		fail(w, http.StatusNotFound, err.Error())
	case errors.Is(err, sensors.ErrInterlock):
		fail(w, http.StatusConflict, err.Error())
	case err != nil:
		fail(w, http.StatusServiceUnavailable, err.Error())
	default:
		reply(w, http.StatusOK, outputResult{name, done})
	}
}

// postMeter is POST /v1/meters/{name} with {"total_pulses":0}: the meter was exchanged, or its total is set.
func (a *Agent) postMeter(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Pulses *uint64 `json:"total_pulses"`
	}
	if !decodeBody(w, r, &body) {
		return
	}
	if body.Pulses == nil {
		fail(w, http.StatusBadRequest, "total_pulses: missing", "total_pulses: missing")
		return
	}
	x, err := a.ExchangeMeter(r.Context(), r.PathValue("name"), *body.Pulses)
	switch {
	case errors.Is(err, errNoMeter):
		fail(w, http.StatusNotFound, err.Error())
	case errors.Is(err, queue.ErrFull):
		fail(w, http.StatusInsufficientStorage, err.Error())
	case err != nil:
		fail(w, http.StatusServiceUnavailable, err.Error())
	default:
		reply(w, http.StatusOK, x)
	}
}

// lineMetrics are those of inputs, meters and outputs.
func lineMetrics(b *bytes.Buffer, s Status) {
	states := func(name, help string, list []LineStatus) {
		if len(list) == 0 {
			return
		}
		fmt.Fprintf(b, "# HELP fieldagent_%s %s\n# TYPE fieldagent_%s gauge\n", name, help, name)
		for _, l := range list {
			if l.State != "" {
				on := 0
				if l.State == sensors.OnOff(true) {
					on = 1
				}
				fmt.Fprintf(b, "fieldagent_%s{name=%q} %d\n", name, l.Name, on)
			}
		}
	}
	states("input", "1 while the input is ON; none while its line is not held.", s.Inputs)
	states("output", "1 while the output is ON; none while its line is not held.", s.Outputs)
	if len(s.Meters) == 0 {
		return
	}
	fmt.Fprintf(b, "# HELP fieldagent_meter_pulses_total Pulses of the meter.\n# TYPE fieldagent_meter_pulses_total counter\n")
	for _, m := range s.Meters {
		fmt.Fprintf(b, "fieldagent_meter_pulses_total{meter=%q} %d\n", m.Name, m.Pulses)
	}
	fmt.Fprintf(b, "# HELP fieldagent_meter_ok 1 while the meter counts without a fault.\n# TYPE fieldagent_meter_ok gauge\n")
	for _, m := range s.Meters {
		ok := 1
		if m.Error != "" {
			ok = 0
		}
		fmt.Fprintf(b, "fieldagent_meter_ok{meter=%q} %d\n", m.Name, ok)
	}
}
