package install

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"fieldagent/integration/boards"
)

// packages are what a root holds besides the essential ones. All are Debian's smallest systems with systemd.
var packages = map[string]string{"amd64": "systemd,systemd-sysv", "arm64": "systemd,systemd-sysv,udev,kmod", "armhf": "systemd,systemd-sysv,udev,kmod"}

// Root returns a Debian root file system of an architecture, made by debootstrap the first time. It belongs to the cache: nobody writes to it.
func Root(ctx context.Context, arch string, log func(string, ...any)) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "fieldagent", "install-1", arch)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if os.Getuid() != 0 {
		return "", fmt.Errorf("making %s needs root: debootstrap gives files to other users", dir)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil // another run has made it in the meantime
	}
	mirror, suite, err := boards.Mirror(ctx)
	if err != nil {
		return "", err
	}
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return "", err
	}
	log("install: debootstrap %s %s", arch, suite)
	args := []string{"--arch=" + arch, "--variant=minbase", "--include=" + packages[arch], suite, part, mirror}
	host, _ := exec.Command("dpkg", "--print-architecture").Output()
	foreign := strings.TrimSpace(string(host)) != arch
	if foreign {
		args = append([]string{"--foreign"}, args...)
	}
	if err := run(exec.CommandContext(ctx, "debootstrap", args...)); err != nil {
		return "", err
	}
	if foreign {
		log("install: second stage of debootstrap under qemu-user, some ten minutes")
		if err := secondStage(ctx, arch, part); err != nil {
			return "", err
		}
	}
	_ = os.RemoveAll(filepath.Join(part, "var/cache/apt/archives"))
	_ = os.RemoveAll(filepath.Join(part, "var/lib/apt/lists"))
	_ = os.Remove(filepath.Join(part, "etc/machine-id"))
	return dir, os.Rename(part, dir)
}

// emulator runs an architecture's programs here; class and machine are the bytes of ELF's header that tell them.
var emulator = map[string]struct{ name, class, machine string }{
	"arm64": {"qemu-aarch64-static", `\x02`, `\xb7`},
	"armhf": {"qemu-arm-static", `\x01`, `\x28`},
}

// emulate registers an emulator for foreign programs (binfmt_misc) and configures the packages. It runs in a user and mount
// namespace of its own, so that this machine's registrations stay as they are.
const emulate = `set -e
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
printf '%s' ':foreign:M::\x7f\x45\x4c\x46'"$3"'\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00'"$4"'\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:'"$(command -v "$2")"':F' > /proc/sys/fs/binfmt_misc/register
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C container=lxc
exec chroot "$1" /debootstrap/debootstrap --second-stage`

func secondStage(ctx context.Context, arch, root string) error {
	// Nothing here needs to survive a power cut: the folder gets its name when it is whole.
	fast := filepath.Join(root, "etc/dpkg/dpkg.cfg.d")
	if err := os.MkdirAll(fast, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(fast, "unsafe-io"), []byte("force-unsafe-io\n"), 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", emulate, "sh", root, emulator[arch].name, emulator[arch].class, emulator[arch].machine)
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true}
	return run(cmd)
}

func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, tail(string(out), 3000))
	}
	return nil
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }
