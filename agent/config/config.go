// Package config reads strict YAML and JSON into tagged Go structs. It knows no other package of the agent; each package owns its structs.
//
// Tags of a field:
//
//	config:"name"            key in the file; ",inline" takes the keys of a struct into its parent, ",required" must be given
//	default:"30s"            as it would stand in the file
//	doc:"One sentence."      for people, in the schema and in `fieldagent drivers`
//	enum:"a,b" min:"1" max:"2" pattern:"^x$"
//	unit:"bytes"             an integer that is written 64KiB or 256MiB
//	local:"true"             may only stand in local files, never in a remote document
//	union:"driver"           an interface{} whose struct is chosen by the key driver beside it (Options.Union)
//
// time.Duration is written 30s or 2m. A struct may have Check(report), for what tags cannot say.
// All faults are reported at once, each with file, line, column and a hint.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// Limits of a document, checked before it is parsed: the parser's time grows with the square of the keys.
const (
	MaxLocal  = 256 << 10
	MaxRemote = 64 << 10
	maxDepth  = 24
	maxNodes  = 20000
	maxFaults = 50
)

// Source is one document.
type Source struct {
	Name string // shown in faults
	Data []byte
}

// Options of reading.
type Options struct {
	// Union returns a pointer to the options struct for a value of the discriminating key, or nil and the values that are known.
	Union func(discriminator, value string) (options any, known []string)
}

// Checker is implemented by structs whose rules tags cannot say. Paths are relative, such as "servers[1]".
type Checker interface {
	Check(report func(path, message, hint string))
}

// Fault is one thing wrong in a document.
type Fault struct {
	File    string
	Line    int // 0: the file as a whole
	Col     int
	Path    string
	Message string
	Hint    string
}

// Error is file:line:col: path: message (hint).
func (f Fault) Error() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Col)
	}
	b.WriteString(": ")
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.Message)
	if f.Hint != "" {
		b.WriteString(" (" + f.Hint + ")")
	}
	return b.String()
}

// Faults is the error that Load returns: everything wrong, in the order of the files.
type Faults []Fault

// Error has one line for each fault.
func (f Faults) Error() string {
	var lines []string
	for _, x := range f {
		lines = append(lines, x.Error())
	}
	return strings.Join(lines, "\n")
}

// Load reads sources into dst, a pointer to a struct. Later sources are laid over earlier ones: maps are merged key by key, lists are replaced.
func Load(dst any, opt Options, sources ...Source) error {
	d := &decoder{opt: opt}
	var tree *value
	for _, s := range sources {
		if v := d.parse(s, MaxLocal); v != nil {
			tree = merge(tree, v)
		}
	}
	return d.into(dst, tree)
}

// Overlay reads the local sources and lays the remote document over them. The remote one may only have the allowed top-level keys, and none marked local.
func Overlay(dst any, opt Options, local []Source, remote Source, allowed []string) error {
	d := &decoder{opt: opt}
	var tree *value
	for _, s := range local {
		if v := d.parse(s, MaxLocal); v != nil {
			tree = merge(tree, v)
		}
	}
	if v := d.parse(remote, MaxRemote); v != nil {
		d.remote(dst, v, allowed)
		tree = merge(tree, v)
	}
	return d.into(dst, tree)
}

// Files reads main and then conf.d/*.yaml beside it, in order.
func Files(main string) ([]Source, error) {
	first, err := readFile(main)
	if err != nil {
		return nil, err
	}
	sources := []Source{first}
	more, err := filepath.Glob(filepath.Join(filepath.Dir(main), "conf.d", "*.yaml"))
	if err != nil {
		return nil, err
	}
	sort.Strings(more)
	for _, name := range more {
		s, err := readFile(name)
		if err != nil {
			return nil, err
		}
		sources = append(sources, s)
	}
	return sources, nil
}

func readFile(name string) (Source, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Source{}, Faults{{File: name, Message: "no such file", Hint: "name another with --config, or install the example /usr/share/doc/fieldagent/examples"}}
	case err != nil:
		return Source{}, Faults{{File: name, Message: err.Error()}}
	case info.IsDir():
		return Source{}, Faults{{File: name, Message: "is a folder", Hint: "name a file"}}
	case info.Size() > MaxLocal:
		return Source{}, tooLarge(name, info.Size(), MaxLocal)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return Source{}, Faults{{File: name, Message: err.Error(), Hint: "the agent's user must be able to read it"}}
	}
	return Source{name, data}, nil
}

func tooLarge(name string, size, limit int64) Faults {
	return Faults{{File: name, Message: fmt.Sprintf("%d bytes long, the limit is %d", size, limit), Hint: "is this the right file?"}}
}
