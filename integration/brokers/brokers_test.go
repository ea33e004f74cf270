package main

import (
	"os"
	"strings"
	"testing"
)

// The README's table is what the program prints for what is known; `make brokers` holds what is known against the brokers themselves.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "<!-- brokers -->\n")
	table, _, end := strings.Cut(rest, "<!-- /brokers -->")
	var rows []Row
	for _, c := range Candidates {
		rows = append(rows, c.Known)
	}
	if want := Table(rows); !ok || !end || table != want {
		t.Errorf("the README has\n%s\nand not\n%s", table, want)
	}
}

// A broker that does worse than is known fails.
func TestBrokers(t *testing.T) {
	n := 40
	if !testing.Short() {
		n = 200
	}
	for _, c := range Candidates {
		if c.Long {
			continue // make brokers installs it
		}
		t.Run(c.Name+" "+c.MQTT, func(t *testing.T) {
			r, err := Judge(t.Context(), c, n)
			if err != nil {
				t.Fatal(err)
			}
			if bad := r.Broken(c); bad != "" {
				t.Error(bad)
			}
		})
	}
}
