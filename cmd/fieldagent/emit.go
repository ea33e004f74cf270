package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"fieldagent/agent"

	"github.com/spf13/cobra"
)

func (p *program) emitCommand() *cobra.Command {
	var qos int
	var wait bool
	var limit time.Duration
	c := &cobra.Command{
		Use:   "emit TYPE [JSON]",
		Short: "store an event; with --wait, until the broker has confirmed it",
		Long:  "emit hands an event to the running agent and ends once it is on disk. JSON - reads the data from standard input.",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := map[string]any{"type": args[0], "qos": qos}
			if len(args) == 2 {
				data := []byte(args[1])
				if args[1] == "-" {
					var err error
					if data, err = io.ReadAll(io.LimitReader(p.stdin, 8<<20)); err != nil {
						return err
					}
				}
				if !json.Valid(data) {
					return usage{fmt.Errorf("the data is no JSON: %.60s", data)}
				}
				body["data"] = json.RawMessage(data)
			}
			path := "/v1/events"
			if wait {
				path += "?wait=" + limit.String()
			}
			var l agent.LifeJSON
			status, err := p.call(cmd.Context(), http.MethodPost, path, body, &l)
			if status == http.StatusBadRequest {
				return usage{err}
			}
			if err != nil {
				return err
			}
			state := l.State
			if state == "" {
				state = "stored"
			}
			p.printf("%s %s\n", l.ID, state)
			if wait && status != http.StatusCreated {
				return errors.New("the broker has not confirmed it yet; it is stored and will be sent")
			}
			return nil
		},
	}
	c.Flags().IntVar(&qos, "qos", 1, "1 (at least once) or 2 (exactly once)")
	c.Flags().BoolVar(&wait, "wait", false, "end when the broker has confirmed it")
	c.Flags().DurationVar(&limit, "timeout", 30*time.Second, "how long --wait waits")
	return c
}
