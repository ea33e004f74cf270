package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

const maxSecret = 64 << 10

// Secret reads a secret from a file that others cannot read. A name without a slash is looked up among systemd's credentials (LoadCredential=).
// A line end at the end of the file does not belong to the secret.
func Secret(name string) (string, error) {
	path := name
	if !strings.Contains(name, "/") {
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return "", fmt.Errorf("secret %q: there are no systemd credentials here; give an absolute path, or add LoadCredential=%s:/path to the unit", name, name)
		}
		path = filepath.Join(dir, name)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("secret: %w; the agent's user must be able to read it", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", fmt.Errorf("secret %s: %w", path, err)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("secret %s: not a regular file", path)
	case info.Mode().Perm()&0o027 != 0:
		return "", fmt.Errorf("secret %s: mode %04o lets others read or change it; run: chmod 640 %s", path, info.Mode().Perm(), path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", path, err)
	}
	if len(b) > maxSecret {
		return "", fmt.Errorf("secret %s: longer than %d bytes", path, maxSecret)
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" {
		return "", errors.New("secret " + path + ": the file is empty")
	}
	return s, nil
}

// SecretFiles returns the names that a config struct gives in keys with the tag secret:"file", as Secret takes them.
func SecretFiles(v any) []string {
	var out []string
	var walk func(reflect.Value)
	walk = func(rv reflect.Value) {
		for rv.Kind() == reflect.Pointer || rv.Kind() == reflect.Interface {
			rv = rv.Elem()
		}
		switch rv.Kind() {
		case reflect.Struct:
			for _, f := range fields(rv.Type()) {
				fv := rv.FieldByIndex(f.index)
				if f.tag.Get("secret") == "file" {
					if name := fv.String(); name != "" && !slices.Contains(out, name) {
						out = append(out, name)
					}
					continue
				}
				walk(fv)
			}
		case reflect.Slice:
			for i := range rv.Len() {
				walk(rv.Index(i))
			}
		}
	}
	walk(reflect.ValueOf(v))
	return out
}
