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
//	schema:"^x$"             pattern for the schema alone, where Check says in words what is wrong
//	like:"x"                 what hints show when a value is of another kind; each_like, each_pattern and so on are for the elements of a list
//	union:"driver"           an interface{} whose struct is chosen by the key driver beside it (Options.Union)
//
// time.Duration is written 30s or 2m. A struct may have Check(report), for what tags cannot say. A text that is required may not be blank.
// All faults are reported at once, each with file, line, column and a hint.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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
	// Check is called with a pointer to each struct that was read, for what the struct itself cannot know.
	Check func(v any, report func(path, message, hint string))
}

// Checker is implemented by structs whose rules tags cannot say. Paths are relative, such as "servers[1]". Several, with a comma between them,
// are what the fault is made of: it stands at the first, and is not told when one of them has a fault already.
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
	d := newDecoder(opt)
	return d.into(dst, d.local(sources))
}

// local reads the files: the first may not be empty, what lies beside it in conf.d may.
func (d *decoder) local(sources []Source) (tree *value) {
	for i, s := range sources {
		empty := ""
		if i == 0 {
			empty = emptyMain
		}
		if v := d.parse(s, MaxLocal, empty); v != nil {
			tree = merge(tree, v)
		}
	}
	return tree
}

// Overlay reads the local sources and lays the remote document over them. The remote one may only have the allowed top-level keys, and none marked local.
func Overlay(dst any, opt Options, local []Source, remote Source, allowed []string) error {
	d := newDecoder(opt)
	tree := d.local(local)
	if v := d.parse(remote, MaxRemote, emptyRemote); v != nil {
		d.remote(dst, v, allowed)
		tree = merge(tree, v)
	}
	return d.into(dst, tree)
}

// Files reads main and then conf.d/*.yaml beside it, in order. Names that begin with a dot are not read: editors leave them.
func Files(main string) ([]Source, error) {
	first, err := readFile(main)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(filepath.Dir(main), "conf.d")
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Source{first}, nil
	case errors.Is(err, syscall.ENOTDIR):
		return nil, Faults{{File: dir, Message: "is no folder", Hint: "make it a folder with *.yaml files in it, or remove it"}}
	case err != nil:
		return nil, Faults{{File: dir, Message: cause(err), Hint: "the agent's user must be able to read the folder; run: chmod o+rx " + dir}}
	}
	sources := []Source{first}
	var faults Faults
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), ".yaml") {
			continue
		}
		name := filepath.Join(dir, e.Name())
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, Fault{File: name, Message: "is a link to nothing", Hint: "remove it, or bring back what it names"})
			continue
		}
		s, err := readFile(name)
		var f Faults
		if errors.As(err, &f) {
			faults = append(faults, f...)
			continue
		}
		sources = append(sources, s)
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return sources, nil
}

// readFile returns Faults and no other error.
func readFile(name string) (Source, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Source{}, Faults{{File: name, Message: "no such file", Hint: "name another with --config, or install the example /usr/share/doc/fieldagent/examples"}}
	case err != nil:
		return Source{}, unreadable(name, err)
	case info.IsDir():
		return Source{}, Faults{{File: name, Message: "is a folder", Hint: "name a file"}}
	case info.Size() > MaxLocal:
		return Source{}, tooLarge(name, info.Size(), MaxLocal)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return Source{}, unreadable(name, err)
	}
	return Source{name, data}, nil
}

func unreadable(name string, err error) Faults {
	return Faults{{File: name, Message: cause(err), Hint: "the agent's user must be able to read it"}}
}

// cause is what went wrong, without the name that stands before it already.
func cause(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

func tooLarge(name string, size, limit int64) Faults {
	return Faults{{File: name, Message: fmt.Sprintf("%d bytes long, the limit is %d", size, limit), Hint: "is this the right file?"}}
}
