package boards

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// moduleFiles returns the paths of the named modules and of all they depend on, in loading order. Modules that are built into the kernel have no file and are left out.
func (c Cache) moduleFiles(debian string, names []string) ([]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(c.path(debian, "lib/modules"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(p, ".ko") {
			files[canonical(strings.TrimSuffix(filepath.Base(p), ".ko"))] = p
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var order []string
	done := map[string]bool{}
	var load func(name string) error
	load = func(name string) error {
		name = canonical(name)
		path, ok := files[name]
		if done[name] || !ok {
			return nil
		}
		done[name] = true
		deps, err := depends(path)
		if err != nil {
			return err
		}
		for _, d := range deps {
			if err := load(d); err != nil {
				return err
			}
		}
		order = append(order, path)
		return nil
	}
	for _, n := range names {
		if err := load(n); err != nil {
			return nil, err
		}
	}
	return order, nil
}

func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// depends reads "depends=a,b" and "softdep=pre: c" from a module's .modinfo section.
func depends(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("%s: no .modinfo", path)
	}
	data, err := s.Data()
	if err != nil {
		return nil, err
	}
	var deps []string
	for _, field := range bytes.Split(data, []byte{0}) {
		if v, ok := strings.CutPrefix(string(field), "depends="); ok && v != "" {
			deps = append(deps, strings.Split(v, ",")...)
		}
		if v, ok := strings.CutPrefix(string(field), "softdep=pre: "); ok {
			deps = append(deps, strings.Fields(v)...)
		}
	}
	return deps, nil
}
