package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"fieldagent/agent"
	"fieldagent/agent/config"

	"github.com/spf13/cobra"
)

func (p *program) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "what is wrong with this installation, and the line that mends it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := newDoctor(p)
			d.all(cmd.Context())
			if d.bad > 0 {
				return silent{fmt.Errorf("%d faults", d.bad)}
			}
			return nil
		},
	}
}

// doctor looks at an installation from outside. Each fault is one line with its cause and what mends it.
type doctor struct {
	p       *program
	root    string                            // of the file system; "/"
	service func(context.Context) serviceInfo // what systemd says
	info    serviceInfo
	who     account // whom the service runs as
	bad     int
}

func newDoctor(p *program) *doctor {
	return &doctor{p: p, root: "/", service: askSystemd, who: serviceAccount()}
}

func (d *doctor) check(what string, err error) bool {
	if err == nil {
		d.p.printf("ok    %s\n", what)
		return true
	}
	d.bad++
	d.p.printf("FAULT %s: %s\n", what, strings.ReplaceAll(err.Error(), "\n", "\n        "))
	return false
}

func (d *doctor) note(format string, args ...any) { d.p.printf("note  "+format+"\n", args...) }

// read returns a small file below the root, without the line end; "" when it is not there.
func (d *doctor) read(name string) string {
	b, err := fs.ReadFile(os.DirFS(d.root), name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.TrimRight(string(b), "\x00"))
}

func (d *doctor) exists(name string) bool {
	_, err := fs.Stat(os.DirFS(d.root), name)
	return err == nil
}

func (d *doctor) all(ctx context.Context) {
	cfg, _, err := d.p.load()
	good := d.check("configuration "+d.p.config, err)
	d.info = d.service(ctx)
	d.unit()
	d.state()
	d.clock()
	d.power()
	if good {
		d.account(cfg)
		d.devices(cfg)
		d.secrets(cfg)
		d.broker(ctx, cfg)
	}
	d.running(ctx)
}

// running asks the agent itself: what it cannot do now, the look from outside may have missed.
func (d *doctor) running(ctx context.Context) {
	var s agent.Status
	_, err := d.p.call(ctx, "GET", "/v1/status", nil, &s)
	if errors.Is(err, errNotRunning) {
		d.note("%v", err)
		return
	}
	if !d.check("agent answers on "+d.p.socket, err) {
		return
	}
	if s.Outbox.Error != "" {
		d.check("outbox", errors.New(s.Outbox.Error))
	}
	if s.Outbox.Full {
		d.check("outbox", fmt.Errorf("full with %d events (%s of %s): bring the broker back, or raise outbox.max_size", s.Outbox.Depth, size(s.Outbox.Bytes), size(s.Outbox.Limit)))
	}
	if s.Broker.Held != "" {
		d.check("delivery", errors.New(s.Broker.Held))
	}
	for _, x := range s.Sensors {
		if x.State == "failed" {
			d.check("sensor "+x.Name, errors.New(x.Error))
		}
	}
}

func (d *doctor) secrets(cfg agent.Config) {
	for _, name := range config.SecretFiles(cfg) {
		_, err := d.secret(name)
		d.check("secret "+name, err)
	}
}

// secret reads a secret as the service would. A systemd credential is looked up where systemd keeps it for the running service.
func (d *doctor) secret(name string) (string, error) {
	if strings.Contains(name, "/") || os.Getenv("CREDENTIALS_DIRECTORY") != "" {
		return config.Secret(name)
	}
	s, err := config.Secret("/run/credentials/" + unitName + "/" + name)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("a systemd credential, which only the service and root can read: sudo fieldagent doctor")
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("a systemd credential that the running service does not have: sudo systemctl edit fieldagent, add [Service] LoadCredential=%s:/etc/fieldagent/credentials/%s, then sudo systemctl restart fieldagent", name, name)
	}
	return s, err
}
