package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"fieldagent/agent/config"

	"github.com/spf13/cobra"
)

func (p *program) diagCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "diag", Short: "collect what a helper needs to see into one file, without secrets", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				host, _ := os.Hostname()
				out = fmt.Sprintf("fieldagent-diag-%s-%s.tar.gz", host, time.Now().UTC().Format("20060102-150405"))
			}
			d := &diag{p: p, doctor: newDoctor(p), run: runProgram, files: os.ReadFile}
			f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return fmt.Errorf("%w; name another file with --output", err)
			}
			names, err := d.write(cmd.Context(), f)
			if err = errors.Join(err, f.Close()); err != nil {
				return err
			}
			p.printf("%s: %s\nIt holds no passwords, keys or event data. Read it before you pass it on: tar -xzOf %s | less\n", out, strings.Join(names, " "), out)
			return nil
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "file to write; it must not exist yet")
	return c
}

// diag collects the pieces of a bundle.
type diag struct {
	p      *program
	doctor *doctor
	run    func(ctx context.Context, name string, args ...string) []byte
	files  func(name string) ([]byte, error)
}

// runProgram returns what a program prints; that it cannot run is an answer too.
func runProgram(ctx context.Context, name string, args ...string) []byte {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=", "LC_ALL=C")
	b, err := cmd.CombinedOutput()
	if err != nil {
		b = fmt.Appendf(b, "\n%s: %v\n", name, err)
	}
	return b
}

// programs are run as they stand; none of them changes anything.
var programs = map[string][]string{
	"journal.txt":      {"journalctl", "--unit=fieldagent", "--lines=1000", "--no-pager", "--output=short-iso"},
	"kernel.txt":       {"journalctl", "--dmesg", "--lines=300", "--no-pager", "--output=short-monotonic"},
	"unit.txt":         {"systemctl", "cat", unitName},
	"unit-show.txt":    {"systemctl", "show", unitName},
	"unit-status.txt":  {"systemctl", "status", "--no-pager", "--lines=0", unitName},
	"time.txt":         {"timedatectl", "show-timesync", "--all"},
	"disk.txt":         {"df", "-h"},
	"inodes.txt":       {"df", "-i"},
	"network.txt":      {"ip", "-brief", "address"},
	"devices.txt":      {"ls", "-l", "/dev"},
	"user.txt":         {"id", "fieldagent"},
	"state-folder.txt": {"ls", "-laR", defaultState},
}

var texts = []string{"/etc/os-release", "/proc/version", "/proc/cmdline", "/proc/meminfo", "/proc/mounts", "/proc/modules", "/sys/firmware/devicetree/base/model", "/boot/firmware/config.txt", "/boot/config.txt"}

// write makes the bundle and returns the names in it.
func (d *diag) write(ctx context.Context, w io.Writer) ([]string, error) {
	pieces := map[string][]byte{}
	cfg, _, err := d.p.load()
	if err != nil {
		pieces["config-faults.txt"] = []byte(err.Error())
	} else if pieces["config.yaml"], err = config.YAML(cfg); err != nil {
		pieces["config.yaml"] = []byte(err.Error())
	}
	var known []string
	for _, name := range config.SecretFiles(cfg) {
		if s, err := d.doctor.secret(name); err == nil {
			known = append(known, s)
			for line := range strings.Lines(s) { // headers, a line each
				if _, value, ok := strings.Cut(line, ":"); ok {
					known = append(known, strings.TrimSpace(value))
				}
			}
		}
	}
	pieces["version.txt"] = []byte(versionString() + "\n")
	pieces["doctor.txt"] = d.doctorSays(ctx)
	pieces["status.json"] = d.ask(ctx, "/v1/status")
	for name, args := range programs {
		pieces[name] = d.run(ctx, args[0], args[1:]...)
	}
	for _, name := range texts {
		if b, err := d.files(name); err == nil {
			pieces["files"+name] = b
		}
	}
	return bundle(w, pieces, known)
}

func (d *diag) doctorSays(ctx context.Context) []byte {
	var out bytes.Buffer
	quiet := *d.p
	quiet.stdout = &out
	doctor := *d.doctor
	doctor.p = &quiet
	doctor.all(ctx)
	return out.Bytes()
}

func (d *diag) ask(ctx context.Context, path string) []byte {
	status, b, err := d.p.raw(ctx, "GET", path, nil)
	if err != nil {
		return []byte(err.Error() + "\n")
	}
	var pretty bytes.Buffer
	if status != 200 || json.Indent(&pretty, b, "", "  ") != nil {
		return b
	}
	return pretty.Bytes()
}

// bundle writes the redacted pieces, in order, as a gzipped tar.
func bundle(w io.Writer, pieces map[string][]byte, known []string) ([]string, error) {
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	names := slices.Sorted(maps.Keys(pieces))
	now := time.Now()
	for _, name := range names {
		b := redact(pieces[name], known)
		if err := t.WriteHeader(&tar.Header{Name: filepath.Join("fieldagent-diag", name), Mode: 0o600, Size: int64(len(b)), ModTime: now}); err != nil {
			return nil, err
		}
		if _, err := t.Write(b); err != nil {
			return nil, err
		}
	}
	return names, errors.Join(t.Close(), z.Close())
}
