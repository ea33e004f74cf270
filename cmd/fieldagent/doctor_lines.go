package main

import (
	"fmt"
	"strings"

	"fieldagent/agent"
	"fieldagent/sensors/board"
)

// lines looks every configured line up; one that somebody else holds cannot be used.
func (d *doctor) lines(cfg agent.Config) {
	look := func(what, line string) {
		_, l, err := board.Lines{}.Find(line)
		if err == nil && l.Used && !strings.HasPrefix(l.Consumer, "fieldagent") {
			err = fmt.Errorf("held by %q: end that, or use another line (fieldagent scan)", l.Consumer)
		}
		d.check(fmt.Sprintf("line %s of %s", line, what), err)
	}
	for _, c := range cfg.Inputs {
		look("input "+c.Name, c.Line)
	}
	for _, c := range cfg.Meters {
		look("meter "+c.Name, c.Line)
	}
	for _, c := range cfg.Outputs {
		look("output "+c.Name, c.Line)
	}
}
