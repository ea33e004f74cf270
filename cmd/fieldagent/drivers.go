package main

import (
	"fmt"
	"text/tabwriter"

	"fieldagent/agent/config"
	"fieldagent/sensors/drivers"

	"github.com/spf13/cobra"
)

func (p *program) driversCommand() *cobra.Command {
	return &cobra.Command{
		Use: "drivers [NAME]", Short: "list what can be read, with all options", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			found := false
			for _, d := range drivers.All {
				if len(args) == 1 && args[0] != d.Name {
					continue
				}
				found = true
				p.printf("%s: %s\n", d.Name, d.Summary)
				w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
				for _, o := range config.Describe(d.Options()) {
					def := "default " + o.Default
					if o.Required {
						def = "required"
					} else if o.Default == "" {
						def = ""
					}
					fmt.Fprintf(w, "    %s\t%s\t%s\t%s\n", o.Name, o.Type, def, o.Doc)
				}
				if d.MinEvery > 0 {
					fmt.Fprintf(w, "    every\tduration\t%v or more\t\n", d.MinEvery)
				}
				for _, q := range d.Quantities {
					fmt.Fprintf(w, "    → %s\t%s\t\t\n", q.Name, q.Unit)
				}
				if err := w.Flush(); err != nil {
					return err
				}
				p.printf("    %s\n\n", d.Example)
			}
			if !found {
				return usage{fmt.Errorf("no driver is called %q; fieldagent drivers lists all", args[0])}
			}
			return nil
		},
	}
}
