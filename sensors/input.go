package sensors

import "time"

// EventConfig says which event a change becomes.
type EventConfig struct {
	Type string `config:"type" pattern:"^[a-z0-9][a-z0-9_-]{0,62}$" doc:"Type of the event; the topic is <root>/event/<type>."`
	QoS  int    `config:"qos" default:"1" min:"1" max:"2" doc:"1 (at least once) or 2 (exactly once)."`
}

// InputConfig is one entry of inputs:.
type InputConfig struct {
	Name      string        `config:"name,required" pattern:"^[a-z0-9][a-z0-9_-]{0,62}$" doc:"Name of the input; its topic is <root>/input/<name>."`
	Line      string        `config:"line,required" doc:"Line by name (GPIO17) or by chip label and offset (pinctrl-bcm2711:17)."`
	Pull      string        `config:"pull" enum:"up,down,off" doc:"Bias of the line; left as it is when not given."`
	ActiveLow bool          `config:"active_low" doc:"Low is ON."`
	Debounce  time.Duration `config:"debounce" default:"20ms" min:"0s" max:"10s" doc:"A level counts only when it holds this long."`
	Event     *EventConfig  `config:"event" doc:"Event for every change; none when not given."`
	PowerFail bool          `config:"power_fail" doc:"ON says that the power is about to go: meters' totals go to disk at once."`
}

// Spec returns how the line is requested.
func (c InputConfig) Spec() LineSpec {
	return LineSpec{Line: c.Line, Consumer: "fieldagent " + c.Name, Pull: c.Pull, ActiveLow: c.ActiveLow, Debounce: c.Debounce}
}
