package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"fieldagent/queue"
	"fieldagent/sensors"
)

// readLine returns the state of a meter, input or output as JSON, nil when none has that name. With a line that failed it has an "error".
func (a *Agent) readLine(name string) []byte {
	s := a.Status()
	if v, ok := a.meters.now(name); ok {
		b := appendReading(nil, a.clock.Now(), v)
		for _, m := range s.Meters {
			if m.Name == name && m.Error != "" {
				b = append(appendText(append(bytes.TrimSuffix(b, []byte("}")), `,"error":`...), m.Error), '}')
			}
		}
		return b
	}
	for _, list := range [][]LineStatus{s.Inputs, s.Outputs} {
		for _, l := range list {
			if l.Name == name {
				return mustJSON(l)
			}
		}
	}
	return nil
}

// decodeBody reads a small JSON object strictly: into is where the value of each key goes.
func (x *api) decodeBody(w http.ResponseWriter, r *http.Request, into map[string]any) bool {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4096))
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error(), err.Error())
		return false
	}
	if x.ending.Err() != nil { // the body may have taken its time
		refuse(w)
		return false
	}
	m, twice, err := fields(body)
	if err != nil {
		faults := "the body is " + err.Error()
		fail(w, http.StatusBadRequest, faults, faults)
		return false
	}
	var faults []string
	for _, name := range twice {
		faults = append(faults, name+": is there twice")
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		v, ok := into[name]
		switch {
		case !ok:
			faults = append(faults, fmt.Sprintf("%s: unknown; known are %s", name, strings.Join(slices.Sorted(maps.Keys(into)), ", ")))
		case json.Unmarshal(m[name], v) != nil:
			faults = append(faults, fmt.Sprintf("%s: %s", name, wanted(v)))
		}
	}
	if len(faults) > 0 {
		fail(w, http.StatusBadRequest, faults[0], faults...)
	}
	return len(faults) == 0
}

// postOutput is POST /v1/outputs/{name} with {"state":"ON","for":"500ms"}.
func (x *api) postOutput(w http.ResponseWriter, r *http.Request) {
	var s setting
	if !x.decodeBody(w, r, map[string]any{"state": &s.State, "for": &s.For}) {
		return
	}
	c, err := s.command()
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error(), err.Error())
		return
	}
	name := r.PathValue("name")
	done, err := x.outputs.do(name, c, "API")
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
func (x *api) postMeter(w http.ResponseWriter, r *http.Request) {
	var pulses *uint64
	if !x.decodeBody(w, r, map[string]any{"total_pulses": &pulses}) {
		return
	}
	if pulses == nil {
		fail(w, http.StatusBadRequest, "total_pulses: missing", "total_pulses: missing")
		return
	}
	done, err := x.ExchangeMeter(r.Context(), r.PathValue("name"), *pulses)
	switch {
	case errors.Is(err, errNoMeter):
		fail(w, http.StatusNotFound, err.Error())
	case errors.Is(err, queue.ErrFull):
		fail(w, http.StatusInsufficientStorage, err.Error())
	case err != nil:
		fail(w, http.StatusServiceUnavailable, err.Error())
	default:
		reply(w, http.StatusOK, done)
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
