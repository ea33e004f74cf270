package main

import (
	"errors"
	"fmt"
	"io/fs"

	"fieldagent/agent"
	"fieldagent/agent/config"
	"fieldagent/sensors/drivers"

	"github.com/spf13/cobra"
)

func (p *program) configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "check and show the configuration", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(
		&cobra.Command{Use: "check [FILE]", Short: "name every fault of the configuration", Args: cobra.MaximumNArgs(1), RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				p.config = args[0]
			}
			cfg, _, err := p.load()
			if err != nil {
				return p.tell(err)
			}
			p.printf("%s: no faults; device %s, %d sensors, %d inputs, %d meters, %d outputs\n", p.config, cfg.ID(), len(cfg.Sensors), len(cfg.Inputs), len(cfg.Meters), len(cfg.Outputs))
			return nil
		}},
		&cobra.Command{Use: "show", Short: "print what is in force, defaults included; of the running agent if there is one",
			Long: "show prints the configuration in force, defaults included: of the running agent, else what its next start puts in force.\nWith --config it shows that file; with --state too, and no agent running, what a start with both puts in force.",
			Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
				named := cmd.Flags().Changed("config")
				status, b, err := p.raw(cmd.Context(), "GET", "/v1/config", nil)
				if err == nil && status == 200 && !named {
					_, err = p.stdout.Write(b)
					return err
				}
				running := !errors.Is(err, errNotRunning)
				cfg, sources, err := p.load()
				if err != nil {
					return p.tell(err)
				}
				if !running && (!named || cmd.Flags().Changed("state")) {
					if cfg, err = p.inForce(cfg, sources); err != nil {
						return err
					}
				}
				b, err = config.YAML(cfg)
				p.printf("%s", b)
				return err
			}},
		&cobra.Command{Use: "diff", Short: "show how what is in force differs from the local file", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, sources, err := p.load()
			if err != nil {
				return p.tell(err)
			}
			local, err := config.YAML(cfg)
			if err != nil {
				return err
			}
			status, running, err := p.raw(cmd.Context(), "GET", "/v1/config", nil)
			switch {
			case errors.Is(err, errNotRunning):
				if cfg, err = p.inForce(cfg, sources); err == nil {
					running, err = config.YAML(cfg)
				}
			case err == nil && status != 200:
				err = fmt.Errorf("the agent answers: %s", running)
			}
			if err != nil {
				return err
			}
			p.printf("%s", diff(string(local), string(running)))
			return nil
		}},
		&cobra.Command{Use: "schema", Short: "print the JSON Schema of the configuration", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
			b, err := config.Schema(&agent.Config{}, agent.ConfigOptions(drivers.All))
			p.printf("%s", b)
			return err
		}},
	)
	return c
}

// inForce returns what the next start puts in force, as the state file has it.
func (p *program) inForce(local agent.Config, sources []config.Source) (agent.Config, error) {
	q, err := p.store()
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(p.stderr, "the agent does not run, and there is no state in %s: this is the local file\n", p.state)
		return local, nil
	}
	if err != nil {
		return local, err
	}
	defer q.Close()
	cfg, _, misfit, err := agent.KeptConfig(q, local, sources, drivers.All)
	fmt.Fprintln(p.stderr, "the agent does not run; this is what it would start with")
	if misfit != nil {
		fmt.Fprintf(p.stderr, "the remote configuration does not fit any more, the local file alone counts: %v\n", misfit)
	}
	return cfg, err
}

// tell prints faults one a line, without the program's name in front: editors jump to file:line:col.
func (p *program) tell(err error) error {
	fmt.Fprintln(p.stderr, err)
	return silent{err}
}
