package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"fieldagent/sensors/board"

	"github.com/spf13/cobra"
)

func (p *program) setCommand() *cobra.Command {
	var hold time.Duration
	c := &cobra.Command{
		Use: "set OUTPUT ON|OFF|TOGGLE", Short: "switch an output; without a running agent the line is held until Ctrl-C", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			state := strings.ToUpper(args[1])
			if state != "ON" && state != "OFF" && state != "TOGGLE" {
				return usage{fmt.Errorf("state %q: use ON, OFF or TOGGLE", args[1])}
			}
			if hold <= 0 && cmd.Flags().Changed("for") {
				return usage{fmt.Errorf("--for %v: write a time above 0, such as 500ms or 2m", hold)}
			}
			body := map[string]any{"state": state}
			if hold > 0 {
				body["for"] = hold.String()
			}
			var answer struct{ State string }
			status, err := p.call(cmd.Context(), http.MethodPost, "/v1/outputs/"+url.PathEscape(args[0]), body, &answer)
			if errors.Is(err, errNotRunning) {
				cfg, _, err := p.load()
				if err != nil {
					return p.tell(err)
				}
				return p.setLine(cmd.Context(), cfg, args[0], state, hold, board.Lines{})
			}
			if status == http.StatusNotFound || status == http.StatusBadRequest {
				return usage{err}
			}
			if err != nil {
				return err
			}
			p.printf("%s %s\n", args[0], answer.State)
			return nil
		},
	}
	c.Flags().DurationVar(&hold, "for", 0, "then back to the other state")
	return c
}
