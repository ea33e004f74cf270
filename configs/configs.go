// Package configs has example configuration files. Each is loaded by a test, as the agent would load it.
//
// fieldagent.yaml is the smallest that works; pump-house.yaml shows every section; the others show one theme each.
package configs

import "embed"

// Files are the examples, by file name.
//
//go:embed *.yaml
var Files embed.FS
