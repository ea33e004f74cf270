package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"fieldagent/sensors"
	"fieldagent/sensors/board"
	"fieldagent/sensors/drivers"

	"github.com/spf13/cobra"
)

func (p *program) readCommand() *cobra.Command {
	return &cobra.Command{
		Use: "read NAME", Short: "read one configured sensor, meter or input once; needs no broker", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var answer json.RawMessage
			status, err := p.call(cmd.Context(), http.MethodGet, "/v1/readings/"+url.PathEscape(args[0]), nil, &answer)
			if err == nil {
				p.printf("%s\n", answer)
				var line struct{ Error string }
				if json.Unmarshal(answer, &line) == nil && line.Error != "" {
					return errors.New(line.Error)
				}
			}
			if status == http.StatusNotFound {
				return usage{err}
			}
			if !errors.Is(err, errNotRunning) {
				return err
			}
			cfg, _, err := p.load()
			if err != nil {
				return p.tell(err)
			}
			b := &board.Board{}
			defer b.Close()
			for _, c := range cfg.Sensors {
				if c.Name != args[0] {
					continue
				}
				values, err := sensors.ReadOnce(cmd.Context(), c, drivers.All, b)
				if err != nil {
					return err
				}
				for _, v := range values {
					text := v.Text
					if text == "" {
						text = strconv.FormatFloat(v.Number, 'f', v.Precision, 64)
					}
					p.printf("%s %s\n", v.Name, text)
				}
				return nil
			}
			if found, err := p.readLine(cfg, args[0], board.Lines{}); found {
				return err
			}
			return usage{fmt.Errorf("no sensor, meter, input or output is called %q in %s", args[0], p.config)}
		},
	}
}
