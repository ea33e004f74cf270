package main

import (
	"fmt"

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
		&cobra.Command{Use: "show", Short: "print what is in force, defaults included; of the running agent if there is one", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			if status, b, err := p.raw(cmd.Context(), "GET", "/v1/config", nil); err == nil && status == 200 && !cmd.Flags().Changed("config") {
				_, err = p.stdout.Write(b)
				return err
			}
			cfg, _, err := p.load()
			if err != nil {
				return p.tell(err)
			}
			b, err := config.YAML(cfg)
			p.printf("%s", b)
			return err
		}},
		&cobra.Command{Use: "diff", Short: "show how what is in force differs from the local file", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := p.load()
			if err != nil {
				return p.tell(err)
			}
			local, err := config.YAML(cfg)
			if err != nil {
				return err
			}
			status, running, err := p.raw(cmd.Context(), "GET", "/v1/config", nil)
			if err != nil {
				return err
			}
			if status != 200 {
				return fmt.Errorf("the agent answers: %s", running)
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

// tell prints faults one a line, without the program's name in front: editors jump to file:line:col.
func (p *program) tell(err error) error {
	fmt.Fprintln(p.stderr, err)
	return silent{err}
}
