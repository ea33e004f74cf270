// Package fieldagent holds no code. It stands at the root of the module for the test that guards the
// architecture: see ARCHITECTURE.md and deps_test.go. The programs are in cmd.
package fieldagent
