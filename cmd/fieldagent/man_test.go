package main

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestManualPage checks fieldagent(8) against the program: every command and every flag stands in it.
func TestManualPage(t *testing.T) {
	b, err := os.ReadFile("../../packaging/man/fieldagent.8")
	if err != nil {
		t.Fatal(err)
	}
	page := strings.ReplaceAll(string(b), `\-`, "-")
	root := (&program{}).root()
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	n := 0
	walk(root, func(c *cobra.Command) {
		n++
		if !c.HasSubCommands() && c.Parent().Name() != "completion" && !strings.Contains(page, c.CommandPath()) {
			t.Errorf("no %q", c.CommandPath())
		}
		c.InitDefaultHelpFlag()
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(page, "--"+f.Name) {
				t.Errorf("%s: no --%s", c.CommandPath(), f.Name)
			}
		})
	})
	if n < 20 {
		t.Errorf("only %d commands: the test looks in the wrong place", n)
	}
	for _, want := range []string{defaultConfig, defaultState, defaultSocket, ".B 3\nBad configuration", ".B 4\nAnother agent"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q", want)
		}
	}
}

func walk(c *cobra.Command, fn func(*cobra.Command)) {
	for _, sub := range c.Commands() {
		fn(sub)
		walk(sub, fn)
	}
}
