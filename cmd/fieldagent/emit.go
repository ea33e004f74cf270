package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
	"unicode/utf8"

	"fieldagent/agent"
	"fieldagent/queue"

	"github.com/spf13/cobra"
)

// maxInput is what emit reads: more than the largest outbox.max_record.
const maxInput = 8 << 20

// readAll reads all of r, if that is not more than limit.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("the data is too large: more than %s", size(limit))
	}
	return b, err
}

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
					if data, err = readAll(p.stdin, maxInput); err != nil {
						return err
					}
				}
				switch {
				case !utf8.Valid(data):
					return usage{fmt.Errorf("the data is not valid UTF-8: %.60q", data)}
				case !json.Valid(data):
					return usage{fmt.Errorf("the data is no JSON: %.60s", data)}
				}
				body["data"] = json.RawMessage(data)
			}
			path := "/v1/events"
			if wait {
				if limit <= 0 {
					return usage{fmt.Errorf("--timeout %v: write a time above 0, such as 30s", limit)}
				}
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
			if l.State == queue.StateDead {
				return fmt.Errorf("it is a dead letter: %s; fieldagent outbox retry %s sends it again", l.Reason, l.ID)
			}
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
