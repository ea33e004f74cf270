package main

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"fieldagent/agent"
	"fieldagent/queue"

	"github.com/spf13/cobra"
)

func (p *program) outboxCommand() *cobra.Command {
	c := &cobra.Command{Use: "outbox", Short: "look at stored events", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(p.outboxList(), p.outboxShow(), p.outboxStats(), p.outboxExport(), p.outboxRetry(), p.outboxPurge())
	return c
}

func (p *program) outboxList() *cobra.Command {
	var limit int
	var state string
	c := &cobra.Command{
		Use: "ls", Short: "list events that are not finished", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"", queue.StateQueued, queue.StateSent, queue.StateDead}, state) {
				return usage{fmt.Errorf("--only %q: use queued, sent or dead", state)}
			}
			if limit < 1 {
				return usage{fmt.Errorf("--limit %d: use 1 or more", limit)}
			}
			var a outboxAnswer
			_, err := p.call(cmd.Context(), http.MethodGet, fmt.Sprintf("/v1/outbox?limit=%d&state=%s", limit, state), nil, &a)
			if err != nil {
				err = p.offline(err, func(q *queue.Queue) (err error) {
					a.Events, err = agent.OutboxList(q, 0, limit, state)
					s := q.Stats()
					a.Depth, a.Dead = s.Depth, s.Dead
					return err
				})
			}
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tSTATE\tTYPE\tQOS\tACCEPTED\tSENT\tREASON")
			for _, e := range a.Events {
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%d\t%s\n", e.ID, e.State, e.Type, e.QoS, when(e.Accepted), e.Sent, e.Reason)
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if len(a.Events) == min(limit, agent.MaxList) {
				p.printf("%s", more(state, len(a.Events), a.OutboxStatus))
			}
			return nil
		},
	}
	c.Flags().IntVar(&limit, "limit", 50, "how many")
	c.Flags().StringVar(&state, "only", "", "only those that are queued, sent or dead")
	return c
}

// more says that the list may go on.
func more(state string, shown int, s agent.OutboxStatus) string {
	how := "--limit shows more"
	if shown >= agent.MaxList {
		how = "fieldagent outbox export has all"
	}
	switch {
	case state == queue.StateDead && s.Dead > shown:
		return fmt.Sprintf("%d dead letters in all; %s\n", s.Dead, how)
	case state == "" && s.Dead == 0 && s.Depth > shown:
		return fmt.Sprintf("%d events wait in all; %s\n", s.Depth, how)
	case state == "" && s.Depth+s.Dead > shown:
		return fmt.Sprintf("%d events wait in all, and %d are dead letters; %s\n", s.Depth, s.Dead, how)
	case (state == queue.StateQueued || state == queue.StateSent) && s.Depth > shown:
		return fmt.Sprintf("there may be more; %s\n", how)
	}
	return ""
}

func when(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format("2006-01-02T15:04:05Z")
}

func (p *program) outboxShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "what became of one event", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := queue.ParseID(args[0])
			if err != nil {
				return usage{err}
			}
			var l agent.LifeJSON
			_, err = p.call(cmd.Context(), http.MethodGet, "/v1/events/"+id.String(), nil, &l)
			if err != nil {
				err = p.offline(err, func(q *queue.Queue) (err error) { l, err = agent.EventLife(q, id); return err })
			}
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
			row := func(k, v string) {
				if v != "" && v != "-" {
					fmt.Fprintf(w, "%s\t%s\n", k, v)
				}
			}
			row("id", l.ID)
			row("state", l.State)
			row("type", l.Type)
			row("accepted", when(l.Accepted))
			row("first sent", when(l.FirstSent))
			row("times sent", fmt.Sprint(l.Sent))
			row("acknowledged", when(l.Acknowledged))
			row("by", l.Server)
			row("reason", l.Reason)
			return w.Flush()
		},
	}
}

func (p *program) outboxStats() *cobra.Command {
	return &cobra.Command{
		Use: "stats", Short: "how full the outbox is", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var a outboxAnswer
			_, err := p.call(cmd.Context(), http.MethodGet, "/v1/outbox?limit=1", nil, &a)
			if err != nil {
				return p.offline(err, func(q *queue.Queue) error { return p.printJSON(p.keptEvents(q)) })
			}
			return p.printJSON(a.OutboxStatus)
		},
	}
}

func (p *program) outboxExport() *cobra.Command {
	return &cobra.Command{
		Use: "export", Short: "write all events that are not finished, one JSON object a line", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, b, err := p.raw(cmd.Context(), http.MethodGet, "/v1/outbox/export", nil)
			if err != nil {
				return p.offline(err, func(q *queue.Queue) error { _, err := q.Export(p.stdout); return err })
			}
			if status != http.StatusOK {
				return fmt.Errorf("export: %s", b)
			}
			_, err = p.stdout.Write(b)
			return err
		},
	}
}

func (p *program) outboxRetry() *cobra.Command {
	return &cobra.Command{
		Use: "retry ID", Short: "send a dead letter again", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := queue.ParseID(args[0]); err != nil {
				return usage{err}
			}
			_, err := p.call(cmd.Context(), http.MethodPost, "/v1/outbox/retry/"+args[0], nil, nil)
			if err == nil {
				p.printf("%s will be sent again\n", args[0])
			}
			return err
		},
	}
}

func (p *program) outboxPurge() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "purge dead|queued", Short: "remove dead letters, or the events that wait behind those taken for sending",
		Long: "purge removes dead letters, or the events that wait. Those that were taken for sending since the agent started stay, also while the broker is away:\nthey may be on their way at any moment. Consumers see a gap.", Args: cobra.ExactArgs(1), ValidArgs: []string{"dead", "queued"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] != "dead" && args[0] != "queued" {
				return usage{fmt.Errorf("%q: purge dead or queued", args[0])}
			}
			if !yes {
				fmt.Fprintf(p.stderr, "This removes events for ever; consumers see a gap. Type %q to go on: ", args[0])
				line, _ := bufio.NewReader(p.stdin).ReadString('\n')
				if strings.TrimSpace(line) != args[0] {
					return errors.New("nothing removed")
				}
			}
			var n struct{ Purged int }
			_, err := p.call(cmd.Context(), http.MethodPost, "/v1/outbox/purge?what="+args[0], nil, &n)
			if err == nil {
				p.printf("%d events removed\n", n.Purged)
			}
			return err
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}
