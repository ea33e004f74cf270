package main

import (
	"github.com/spf13/cobra"
)

func (p *program) watchCommand() *cobra.Command {
	var device string
	c := &cobra.Command{
		Use: "watch", Short: "subscribe and show live what the device sends; flags gaps and doubles", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.watch(cmd.Context(), device) },
	}
	c.Flags().StringVar(&device, "device", "", "another device's id, behind the same broker")
	return c
}
