package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"
)

// maxSocket is the longest path of a Unix socket (unix(7)).
const maxSocket = 107

// ListenLocal opens the Unix socket of the local API: mode 0660, group fieldagent where that group exists. A socket that nobody serves is replaced.
func ListenLocal(path string) (net.Listener, error) {
	if len(path) > maxSocket {
		return nil, fmt.Errorf("socket %s: the path has %d bytes, the most is %d; name a shorter one with --socket", path, len(path), maxSocket)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("socket: %w; name another place with --socket", err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("socket %s: another agent serves it; end that, or name another with --socket", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w; name another with --socket", path, err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("socket: %w", err)
	}
	if g, err := user.LookupGroup("fieldagent"); err == nil {
		if gid, err := strconv.Atoi(g.Gid); err == nil {
			_ = os.Chown(path, -1, gid) // without the right to, the agent's own group stays
		}
	}
	return l, nil
}

// ServeLocal serves the local API until ctx ends.
func (a *Agent) ServeLocal(ctx context.Context, l net.Listener) error {
	s := &http.Server{Handler: a.API(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		if s.Shutdown(end) != nil {
			_ = s.Close()
		}
	})
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("local API: %w", err)
	}
	return nil
}
