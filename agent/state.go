package agent

import (
	"encoding/json"
	"time"

	"fieldagent/sensors"
)

// Status is the agent's state at one moment, as GET /v1/status and health show it. Times are UTC, sizes bytes.
type Status struct {
	Device   string            `json:"device"`
	Root     string            `json:"root"`
	Version  string            `json:"version"`
	Boot     string            `json:"boot"`
	Started  time.Time         `json:"started"`
	Time     time.Time         `json:"time"`
	Uptime   float64           `json:"uptime_seconds"`       // of the agent
	Board    float64           `json:"board_uptime_seconds"` // of the kernel
	Clock    string            `json:"clock"`
	Labels   map[string]string `json:"labels,omitempty"`
	Broker   BrokerStatus      `json:"broker"`
	Outbox   OutboxStatus      `json:"outbox"`
	Readings ReadingStatus     `json:"readings"`
	Sensors  []SensorStatus    `json:"sensors"`
	Inputs   []LineStatus      `json:"inputs,omitempty"`
	Meters   []MeterStatus     `json:"meters,omitempty"`
	Outputs  []LineStatus      `json:"outputs,omitempty"`
	Commands CommandStatus     `json:"commands"`
	Config   ConfigState       `json:"config"`
	Memory   MemoryStatus      `json:"memory"`
	Warnings []string          `json:"warnings,omitempty"` // what will fail soon, such as certificates
}

// BrokerStatus is the connection.
type BrokerStatus struct {
	Connected  bool       `json:"connected"`
	Subscribed bool       `json:"subscribed"` // the device can be commanded
	Server     string     `json:"server,omitempty"`
	Since      *time.Time `json:"since,omitempty"`
	Error      string     `json:"error,omitempty"`   // why not, or why not the last time
	Held       string     `json:"held,omitempty"`    // why events are not sent although the broker is there
	Limited    string     `json:"limited,omitempty"` // what it cannot do for QoS 2 events, and what becomes of them
	InFlight   int        `json:"in_flight"`
	Connects   uint64     `json:"connects"`

	AliasSaved int64 `json:"alias_saved_bytes,omitempty"` // by topic aliases (MQTT 5), since start
}

// OutboxStatus is the store.
type OutboxStatus struct {
	Depth        int     `json:"depth"`
	OldestAge    float64 `json:"oldest_age_seconds"`
	Bytes        int64   `json:"bytes"`
	Limit        int64   `json:"limit_bytes"`
	Full         bool    `json:"full"`
	Dead         int     `json:"dead"`
	Refused      uint64  `json:"refused"`
	Lost         uint64  `json:"lost"`
	Ambiguous    uint64  `json:"ambiguous"`
	HandedOver   uint64  `json:"handed_over"` // of these, sent to another broker after the first had them
	Sent         uint64  `json:"sent"`        // PUBLISH packets since start
	Repeated     uint64  `json:"repeated"`    // of these, sent again after a reconnect
	Acknowledged uint64  `json:"acknowledged"`
	WrittenToday int64   `json:"written_today_bytes"`
	Commits      uint64  `json:"commits"`
	Error        string  `json:"error,omitempty"`
}

// ReadingStatus counts live readings since start.
type ReadingStatus struct {
	Sent    uint64 `json:"sent"`
	Dropped uint64 `json:"dropped"`
	Kept    uint64 `json:"kept"` // sent through the outbox (offline: keep)
}

// SensorStatus is one sensor.
type SensorStatus struct {
	Name        string          `json:"name"`
	Driver      string          `json:"driver"`
	State       string          `json:"state"` // starting, ok, failed
	Error       string          `json:"error,omitempty"`
	LastError   string          `json:"last_error,omitempty"` // also when it works again
	LastErrorAt *time.Time      `json:"last_error_at,omitempty"`
	Since       *time.Time      `json:"since,omitempty"`
	Reading     json.RawMessage `json:"reading,omitempty"` // the newest one, as published
}

// LineStatus is one input or output.
type LineStatus struct {
	Name   string     `json:"name"`
	Line   string     `json:"line"`
	State  string     `json:"state,omitempty"` // ON, OFF; none while the line is not held
	Error  string     `json:"error,omitempty"`
	Since  *time.Time `json:"since,omitempty"`  // of an input's state
	Polled bool       `json:"polled,omitempty"` // the chip has no interrupts: short pulses are missed
}

func (l *LineStatus) set(held, on bool, err error) {
	if held {
		l.State = sensors.OnOff(on)
	}
	if err != nil {
		l.Error = err.Error()
	}
}

// MeterStatus is one meter.
type MeterStatus struct {
	LineStatus
	Pulses    uint64          `json:"total_pulses"`
	Total     json.RawMessage `json:"total,omitempty"` // in units
	Unit      string          `json:"unit,omitempty"`
	Period    uint64          `json:"pulses"`                 // since the last billing record
	Unsaved   uint64          `json:"unsaved_pulses"`         // a power cut now would lose them
	Missed    uint64          `json:"missed_edges,omitempty"` // read late; already in the total
	Exchanges int             `json:"exchanges,omitempty"`
}

// CommandStatus counts commands since start.
type CommandStatus struct {
	Running  string     `json:"running,omitempty"` // name and id of the one under way
	Since    *time.Time `json:"since,omitempty"`   // when that one began
	Waiting  int        `json:"waiting"`           // behind it, or for their moment
	Executed uint64     `json:"executed"`
	Refused  uint64     `json:"refused"`
}

// MemoryStatus is the process.
type MemoryStatus struct {
	Resident int64 `json:"resident_bytes"`
	Heap     int64 `json:"heap_bytes"`
	Routines int   `json:"goroutines"`
}

// ConfigState is what config/state says.
type ConfigState struct {
	Applied     AppliedConfig  `json:"applied"`
	LastAttempt *ConfigAttempt `json:"last_attempt,omitempty"`
}

// AppliedConfig is the configuration in force.
type AppliedConfig struct {
	Hash     string `json:"hash"`
	Revision uint64 `json:"revision"`
	Source   string `json:"source"`          // local or remote
	Group    string `json:"group,omitempty"` // that a remote one was sent to
	At       string `json:"at"`
}

// ConfigAttempt is what became of the last document on config/set.
type ConfigAttempt struct {
	Hash     string   `json:"hash"`
	Revision uint64   `json:"revision"`
	Result   string   `json:"result"` // applied, rejected, rolled_back, pending
	Errors   []string `json:"errors,omitempty"`
	At       string   `json:"at"`
}
