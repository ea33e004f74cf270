package boards

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// Cache is where the unpacked packages are: about 120 MB of downloads, 640 MB unpacked.
type Cache struct{ dir string }

// Prepare downloads and unpacks what is not there yet. log gets a line per step.
func Prepare(ctx context.Context, log func(string, ...any)) (Cache, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return Cache{}, err
	}
	c := Cache{filepath.Join(base, "fieldagent", "boards-1")}
	if _, err := os.Stat(c.path("ready")); err == nil {
		return c, nil
	}
	unlock, err := c.lock()
	if err != nil {
		return c, err
	}
	defer unlock()
	if _, err := os.Stat(c.path("ready")); err == nil {
		return c, nil // another run has made it in the meantime
	}
	arch, err := exec.CommandContext(ctx, "dpkg", "--print-architecture").Output()
	if err != nil {
		return c, fmt.Errorf("dpkg: %w: the boards boot Debian's kernels, which are fetched with apt", err)
	}
	host := strings.TrimSpace(string(arch))
	src, err := aptSource(ctx)
	if err != nil {
		return c, err
	}
	for _, d := range []string{"lists/partial", "archives/partial", "debs", "qemu", "arm64", "armhf"} {
		if err := os.MkdirAll(c.path(d), 0o755); err != nil {
			return c, err
		}
	}
	if err := os.WriteFile(c.path("sources.list"), []byte(src.list()), 0o644); err != nil {
		return c, err
	}
	// Private lists, so that the machine's own package state is not touched.
	opts := []string{"-q", "-o", "APT::Sandbox::User=root", "-o", "Dir::Etc::sourcelist=" + c.path("sources.list"), "-o", "Dir::Etc::sourceparts=-", "-o", "Dir::State::lists=" + c.path("lists"),
		"-o", "Dir::Cache=" + c.path("archives"), "-o", "APT::Architectures=" + host + ",arm64,armhf"}
	log("boards: fetching package lists")
	if err := c.run(ctx, "apt-get", append(opts, "update")...); err != nil {
		return c, err
	}
	var kernels []string
	for _, meta := range []string{"linux-image-arm64:arm64", "linux-image-armmp:armhf"} {
		out, err := exec.CommandContext(ctx, "apt-cache", append(opts[1:], "show", meta)...).Output()
		if err != nil {
			return c, fmt.Errorf("apt-cache show %s: %w", meta, err)
		}
		m := regexp.MustCompile(`(?m)^Depends: (linux-image-6\.1\.[^ ]+)`).FindSubmatch(out)
		if m == nil {
			return c, fmt.Errorf("%s: no 6.1 kernel in %s's list", meta, suite)
		}
		kernels = append(kernels, string(m[1])+meta[strings.IndexByte(meta, ':'):])
	}
	log("boards: downloading %v and QEMU 10", kernels)
	get := append(append(opts, "download"), kernels...)
	if err := c.run(ctx, "apt-get", append(get, "qemu-system-arm:"+host+"/"+suite+"-backports", "qemu-system-data:all/"+suite+"-backports", "qemu-system-common:"+host+"/"+suite+"-backports")...); err != nil {
		return c, err
	}
	debs, _ := filepath.Glob(c.path("debs", "*.deb"))
	for _, d := range debs {
		into := "qemu"
		for _, arch := range []string{"arm64", "armhf"} {
			if strings.HasSuffix(d, "_"+arch+".deb") {
				into = arch
			}
		}
		if err := c.run(ctx, "dpkg-deb", "-x", d, c.path(into)); err != nil {
			return c, err
		}
		if strings.Contains(d, "qemu-system-arm") {
			if err := c.libraries(ctx, d, log); err != nil {
				return c, err
			}
		}
	}
	return c, os.WriteFile(c.path("ready"), nil, 0o644)
}

// lock keeps two runs from filling the cache at once.
func (c Cache) lock() (func(), error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(c.path("lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// libraries installs the shared libraries that the unpacked QEMU names.
func (c Cache) libraries(ctx context.Context, deb string, log func(string, ...any)) error {
	if err := exec.CommandContext(ctx, c.path("qemu/usr/bin/qemu-system-arm"), "--version").Run(); err == nil {
		return nil
	}
	out, err := exec.CommandContext(ctx, "dpkg-deb", "-f", deb, "Depends").Output()
	if err != nil {
		return err
	}
	install := []string{"install", "-y", "-q", "--no-install-recommends"}
	for _, dep := range strings.Split(string(out), ",") {
		if name := strings.Fields(dep)[0]; strings.HasPrefix(name, "lib") {
			install = append(install, name)
		}
	}
	if os.Getuid() != 0 {
		return fmt.Errorf("QEMU needs libraries; as root: apt-get %s", strings.Join(install, " "))
	}
	log("boards: installing QEMU's shared libraries")
	if err := c.run(ctx, "apt-get", "update", "-q"); err != nil {
		return err
	}
	return c.run(ctx, "apt-get", install...)
}

func (c Cache) run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = c.path("debs")
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, args[len(args)-1], err, out)
	}
	return nil
}

func (c Cache) path(elem ...string) string { return filepath.Join(append([]string{c.dir}, elem...)...) }

// glob returns the one file that matches.
func (c Cache) glob(pattern string) (string, error) {
	m, _ := filepath.Glob(c.path(pattern))
	if len(m) != 1 {
		return "", fmt.Errorf("%s: %d files; remove %s and run again", pattern, len(m), c.dir)
	}
	return m[0], nil
}
