package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
