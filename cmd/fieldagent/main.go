// Command fieldagent turns a Linux board into a dependable MQTT device.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"fieldagent/agent/config"
	"fieldagent/queue"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitConfig = 3
	exitLocked = 4
)

// Defaults of the installed unit.
const (
	defaultConfig = "/etc/fieldagent/fieldagent.yaml"
	defaultState  = "/var/lib/fieldagent"
	defaultSocket = "/run/fieldagent/fieldagent.sock"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Main runs one command line and returns its exit code.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := &checked{Writer: stdout}
	p := &program{stdin: stdin, stdout: out, stderr: stderr}
	root := p.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = out.failed()
	}
	if err == nil {
		return exitOK
	}
	var quiet silent
	if !errors.As(err, &quiet) {
		fmt.Fprintln(stderr, "fieldagent:", err)
	}
	return code(err)
}

// checked remembers that something could not be printed: most commands do not look.
type checked struct {
	io.Writer
	mu  sync.Mutex
	err error
}

func (c *checked) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	if err != nil {
		c.mu.Lock()
		c.err = cmp.Or(c.err, err)
		c.mu.Unlock()
	}
	return n, err
}

func (c *checked) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// silent is an error that was told already.
type silent struct{ error }

func (s silent) Unwrap() error { return s.error }

// usage is an error in the command line.
type usage struct{ error }

func code(err error) int {
	var u usage
	var f config.Faults
	var b badConfig
	switch {
	case errors.As(err, &u):
		return exitUsage
	case errors.As(err, &f), errors.As(err, &b):
		return exitConfig
	case errors.Is(err, queue.ErrLocked):
		return exitLocked
	}
	return exitFailed
}

// badConfig is a fault of the configuration that has no place in a file.
type badConfig struct{ error }

func (b badConfig) Unwrap() error { return b.error }

type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	config         string
	state          string
	socket         string
}

func (p *program) root() *cobra.Command {
	var version bool // not cobra's: a version template pulls in text/template's reflection, and with it 1.9 MB
	root := &cobra.Command{
		Use:           "fieldagent",
		Short:         "a dependable MQTT device: sensors, meters, outputs, and events that are never lost",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version {
				p.printf("%s\n", versionLine())
				return nil
			}
			return cmd.Help()
		},
	}
	root.Flags().BoolVar(&version, "version", false, "print the version")
	f := root.PersistentFlags()
	f.StringVar(&p.config, "config", defaultConfig, "configuration file; conf.d/*.yaml beside it is read too")
	f.StringVar(&p.state, "state", defaultState, "folder of the durable state")
	f.StringVar(&p.socket, "socket", defaultSocket, "Unix socket of the local API")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		for name, value := range map[string]string{"config": p.config, "state": p.state, "socket": p.socket} {
			if value == "" {
				return usage{fmt.Errorf("--%s is empty: name one, or leave the flag out", name)}
			}
		}
		return nil
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage{err} })
	root.AddCommand(p.runCommand(), p.configCommand(), p.driversCommand(), p.scanCommand(), p.readCommand(), p.setCommand(), p.emitCommand(), p.outboxCommand(),
		p.statusCommand(), p.watchCommand(), p.doctorCommand(), p.diagCommand(), p.versionCommand())
	root.SetOut(p.stdout) // before the next line: it keeps where to write to
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "completion":
			c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() } // else an unknown shell would be no error
		case "help":
			c.RunE = help // else an unknown command would be no error
		}
	}
	p.strictArgs(root)
	return root
}

// help shows the help text of a command.
func help(cmd *cobra.Command, args []string) error {
	about, rest, err := cmd.Root().Find(args)
	if err != nil || len(rest) > 0 {
		return usage{fmt.Errorf("no command is called %q; fieldagent help lists all", strings.Join(args, " "))}
	}
	about.InitDefaultHelpFlag()
	return about.Help()
}

// strictArgs turns complaints about arguments into usage errors.
func (p *program) strictArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usage{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		p.strictArgs(sub)
	}
}

func (p *program) printf(format string, args ...any) { fmt.Fprintf(p.stdout, format, args...) }
