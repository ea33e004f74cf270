package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

const unitName = "fieldagent.service"

// serviceInfo is what systemd says of the unit; empty where there is no systemd.
type serviceInfo map[string]string

// askSystemd asks for the properties that unit looks at.
func askSystemd(ctx context.Context) serviceInfo {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil
	}
	out, err := exec.CommandContext(ctx, "systemctl", "show", unitName, "--property=LoadState,ActiveState,SubState,Result,ExecMainStatus,StatusText,NRestarts,UnitFileState").Output()
	if err != nil {
		return nil
	}
	info := serviceInfo{}
	for line := range strings.Lines(string(out)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			info[k] = v
		}
	}
	return info
}

// unit tells how the service is, and why it is not.
func (d *doctor) unit() {
	s := d.info
	if s == nil {
		d.note("no systemd here: the agent is started by something else")
		return
	}
	status := ""
	if t := s["StatusText"]; t != "" {
		status = ": " + t
	}
	switch {
	case s["LoadState"] == "not-found":
		d.check("service", errors.New("there is no "+unitName+": install the package"))
	case s["ActiveState"] == "active":
		d.check("service runs"+status, nil)
		if n := s["NRestarts"]; n != "0" && n != "" {
			d.note("systemd has started it again %s times: journalctl -u fieldagent -p warning", n)
		}
		if s["UnitFileState"] == "disabled" {
			d.check("service at boot", errors.New("not enabled: sudo systemctl enable fieldagent"))
		}
	case s["ActiveState"] == "failed" || s["SubState"] == "auto-restart":
		d.check("service", fmt.Errorf("%s%s; %s", s["SubState"], status, exitRemedy(s["ExecMainStatus"])))
	case s["UnitFileState"] == "masked":
		d.check("service", errors.New("masked: sudo systemctl unmask fieldagent && sudo systemctl enable --now fieldagent"))
	default:
		d.check("service", fmt.Errorf("%s%s: sudo systemctl enable --now fieldagent", s["SubState"], status))
	}
}

// exitRemedy knows our own exit codes and those of systemd.exec(5) that an installation can run into.
func exitRemedy(status string) string {
	switch status {
	case "3":
		return "the configuration has faults: mend what fieldagent config check names, then sudo systemctl restart fieldagent"
	case "4":
		return "another agent holds the state: end it (pgrep -a fieldagent); the service takes over by itself"
	case "216":
		return "a group named in a drop-in does not exist (216/GROUP): systemctl cat fieldagent, sudo systemd-sysusers"
	case "217":
		return "the user fieldagent does not exist (217/USER): sudo systemd-sysusers, then sudo systemctl restart fieldagent"
	case "226":
		return "the sandbox cannot be set up (226/NAMESPACE): journalctl -u fieldagent -n 5 names the path"
	case "238":
		return "the state folder cannot be made or is on a read-only file system (238/STATE_DIRECTORY): see state folder below"
	case "243":
		return "a secret named by LoadCredential= is missing (243/CREDENTIALS): systemctl cat fieldagent, then make that file"
	}
	return "journalctl -u fieldagent -n 20 says why"
}
