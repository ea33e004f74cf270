// Command brokers is the conformance program: it has each broker judged by what it does with events of the agent over cut lines and a restart,
// and prints the table that stands in the README.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

func main() {
	long := flag.Bool("long", false, "RabbitMQ too; it takes a minute or two and 150 MB")
	only := flag.String("only", "", "one broker")
	n := flag.Int("events", 200, "events at each QoS")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	var rows []Row
	failed := false
	for _, c := range Candidates {
		if c.Long && !*long || *only != "" && c.Name != *only {
			continue
		}
		r, err := Judge(ctx, c, *n)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", c.Name, err)
			failed = true
			continue
		}
		rows = append(rows, r)
		if bad := r.Broken(c); bad != "" {
			fmt.Fprintf(os.Stderr, "%s: %s\n", c.Name, bad)
			failed = true
		}
	}
	fmt.Print(Table(rows))
	if failed {
		os.Exit(1)
	}
}

// Row is one line of the table.
type Row struct {
	Broker, MQTT, One, Two, Restart, Note string
}

var header = Row{"broker", "MQTT", "events at QoS 1", "events at QoS 2", "session after a restart", "remarks"}

// Table is the rows in Markdown.
func Table(rows []Row) string {
	var b strings.Builder
	line := func(r Row) {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", r.Broker, r.MQTT, r.One, r.Two, r.Restart, r.Note)
	}
	line(header)
	b.WriteString("|---|---|---|---|---|---|\n")
	for _, r := range rows {
		line(r)
	}
	return b.String()
}

// Broken says what a broker did worse than is known of it.
func (r Row) Broken(c Candidate) string {
	if r != c.Known {
		return fmt.Sprintf("judged\n%swhat is known\n%s", Table([]Row{r}), Table([]Row{c.Known}))
	}
	return ""
}
