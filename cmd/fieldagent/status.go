package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"fieldagent/agent"
	"fieldagent/queue"
	"fieldagent/sensors/drivers"

	"github.com/spf13/cobra"
)

func (p *program) statusCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "status", Short: "what the running agent is doing; without one, what its state file says", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s agent.Status
			if _, err := p.call(cmd.Context(), http.MethodGet, "/v1/status", nil, &s); err != nil {
				return p.offline(err, func(q *queue.Queue) error { return p.keptStatus(q, asJSON) })
			}
			if asJSON {
				return p.printJSON(s)
			}
			return p.showStatus(s)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return c
}

// kept is the status of an agent that does not run.
type kept struct {
	Running bool               `json:"running"`
	Device  string             `json:"device,omitempty"`
	Root    string             `json:"root,omitempty"`
	Time    *time.Time         `json:"last_known_time,omitempty"`
	Outbox  agent.KeptOutbox   `json:"outbox"`
	Config  *agent.ConfigState `json:"config,omitempty"`
	Faults  string             `json:"faults,omitempty"` // why the configuration is not known
}

// keptStatus shows what a state file says.
func (p *program) keptStatus(q *queue.Queue, asJSON bool) error {
	k := kept{Outbox: p.keptEvents(q)}
	if t, err := agent.KeptTime(q); err != nil {
		return err
	} else if t = t.UTC(); !t.IsZero() {
		k.Time = &t
	}
	if cfg, sources, err := p.load(); err != nil {
		k.Faults = err.Error()
	} else {
		k.Device, k.Root = cfg.ID(), cfg.Source()
		_, state, misfit, err := agent.KeptConfig(q, cfg, sources, drivers.All)
		if err != nil {
			return err
		}
		if k.Config = &state; misfit != nil {
			k.Faults = "the remote configuration does not fit any more, the local file alone counts: " + misfit.Error()
		}
	}
	if asJSON {
		return p.printJSON(k)
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	row := func(k, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", k, fmt.Sprintf(format, args...)) }
	row("agent", "does not run: nobody serves %s", p.socket)
	if k.Device != "" {
		row("device", "%s (%s)", k.Device, k.Root)
	}
	outbox := fmt.Sprintf("%d events wait", k.Outbox.Depth)
	if k.Outbox.OldestAge != nil {
		outbox += fmt.Sprintf(", oldest %v", seconds(*k.Outbox.OldestAge))
	}
	outbox += "; " + size(k.Outbox.Bytes)
	if k.Outbox.Limit > 0 {
		outbox += " of " + size(k.Outbox.Limit)
	}
	row("outbox", "%s", outbox)
	if k.Outbox.Dead > 0 {
		row("", "%d dead letters", k.Outbox.Dead)
	}
	if k.Config != nil {
		configRows(row, *k.Config)
	}
	if k.Faults != "" {
		row("faults", "%s", strings.ReplaceAll(k.Faults, "\n", "; "))
	}
	row("time", "%s on disk", when(k.Time))
	return w.Flush()
}

func configRows(row func(k, format string, args ...any), s agent.ConfigState) {
	row("config", "%s, revision %d (%s)", s.Applied.Hash, s.Applied.Revision, s.Applied.Source)
	if a := s.LastAttempt; a != nil {
		row("", "last remote document: %s %s", a.Result, strings.Join(a.Errors, "; "))
	}
}

func (p *program) printJSON(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		p.printf("%s\n", b)
	}
	return err
}

func (p *program) showStatus(s agent.Status) error {
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	row := func(k, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", k, fmt.Sprintf(format, args...)) }
	row("device", "%s (%s)", s.Device, s.Root)
	row("version", "%s, up %v, clock %s", s.Version, seconds(s.Uptime), s.Clock)
	broker := "not connected"
	if s.Broker.Connected {
		broker = "connected to " + s.Broker.Server
		if s.Broker.Since != nil {
			broker += " since " + when(s.Broker.Since)
		}
	} else if s.Broker.Error != "" {
		broker += ": " + s.Broker.Error
	}
	row("broker", "%s", broker)
	if s.Broker.Connected && s.Broker.Error != "" {
		row("", "%s", strings.ReplaceAll(s.Broker.Error, "\n", "; "))
	}
	if s.Broker.Held != "" {
		row("", "events are held: %s", s.Broker.Held)
	}
	row("outbox", "%d events wait, oldest %v; %d in flight, %d confirmed since start; %s of %s", s.Outbox.Depth, seconds(s.Outbox.OldestAge), s.Broker.InFlight, s.Outbox.Acknowledged, size(s.Outbox.Bytes), size(s.Outbox.Limit))
	var notes []string
	for name, n := range map[string]uint64{"dead letters": uint64(s.Outbox.Dead), "refused": s.Outbox.Refused, "lost": s.Outbox.Lost, "ambiguous": s.Outbox.Ambiguous} {
		if n > 0 {
			notes = append(notes, fmt.Sprintf("%d %s", n, name))
		}
	}
	if len(notes) > 0 {
		row("", "%s", strings.Join(notes, ", "))
	}
	if s.Outbox.Error != "" {
		row("", "cannot store: %s", s.Outbox.Error)
	}
	row("readings", "%d sent, %d dropped, %d kept", s.Readings.Sent, s.Readings.Dropped, s.Readings.Kept)
	if s.Commands.Running != "" {
		row("command", "%s is running since %s, %d wait", s.Commands.Running, when(s.Commands.Since), s.Commands.Waiting)
	} else if s.Commands.Waiting > 0 {
		row("command", "%d wait", s.Commands.Waiting)
	}
	configRows(row, s.Config)
	for _, w := range s.Warnings {
		row("warning", "%s", w)
	}
	row("memory", "%s", size(s.Memory.Resident))
	if err := w.Flush(); err != nil {
		return err
	}
	if len(s.Sensors) > 0 {
		fmt.Fprintln(w, "\nSENSOR\tSTATE\tREADING")
		for _, x := range s.Sensors {
			text := string(x.Reading)
			if x.State == "failed" {
				text = x.Error
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", x.Name, x.State, text)
		}
	}
	showLines(w, s)
	return w.Flush()
}

// showLines shows inputs, meters and outputs; an error instead of what is not known.
func showLines(w io.Writer, s agent.Status) {
	for _, kind := range []struct {
		name string
		list []agent.LineStatus
	}{{"INPUT", s.Inputs}, {"OUTPUT", s.Outputs}} {
		for i, l := range kind.list {
			if i == 0 {
				fmt.Fprintf(w, "\n%s\tSTATE\tLINE\n", kind.name)
			}
			fmt.Fprintf(w, "%s\t%s\t%s %s\n", l.Name, l.State, l.Line, l.Error)
		}
	}
	for i, m := range s.Meters {
		if i == 0 {
			fmt.Fprintln(w, "\nMETER\tPULSES\tTOTAL")
		}
		total := string(m.Total) + " " + m.Unit
		if m.Error != "" {
			total += "  " + m.Error
		}
		fmt.Fprintf(w, "%s\t%d\t%s\n", m.Name, m.Pulses, total)
	}
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Second)
}

func size(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
