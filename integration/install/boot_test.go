package install

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fieldagent/integration/boards"
	"fieldagent/integration/verify"
)

const boardConfig = `device: {id: box}
mqtt: {servers: ["mqtt://10.0.2.100:1883"], keepalive: 10s, reconnect: {min: 500ms, max: 2s}}
sensors:
  - {name: cabinet, driver: lm75, bus: %s, address: 0x48, every: 1s}
inputs:
  - {name: door, line: "%s", debounce: 0s, event: {type: door, qos: 2}}
`

// firstBoot installs the package as a person would, and says on the console how long it took.
const firstBoot = `#!/bin/sh
read up rest < /proc/uptime
echo "UP $up" > /dev/console
if [ ! -x /usr/bin/fieldagent ]; then
	dpkg --install --force-confold /root/fieldagent.deb > /root/dpkg.log 2>&1 || { cat /root/dpkg.log > /dev/console; exit 1; }
	read now rest < /proc/uptime
	echo "INSTALLED $now" > /dev/console
fi
`

// producer stores events for ever, and tells the console of each one that was accepted.
const producer = `#!/bin/sh
boot=$(($(cat /root/boots 2>/dev/null || echo 0) + 1))
echo $boot > /root/boots
sync
n=$((boot * 100000))
while :; do
	if id=$(fieldagent emit test "{\"p\":1,\"n\":$n}" --qos 2 2>/dev/null); then
		echo "ACCEPTED $n ${id%% *}" > /dev/console
		n=$((n + 1))
		# for whoever reads the console of a failed run
		[ $((n % 50)) = 5 ] && { echo "STATUS $(systemctl show fieldagent --value --property=StatusText)"; networkctl --no-pager --no-legend; } > /dev/console
	else
		sleep 1
	fi
done
`

const units = `[Unit]
After=basic.target
[Service]
Type=%s
ExecStart=/bin/sh /root/%s.sh
%s
[Install]
WantedBy=multi-user.target
`

// TestBoot is the long form: Debian with systemd on an emulated 64-bit and a 32-bit board, real kernel, real I2C chip. The package is
// installed with dpkg, the unit started by systemd; the power goes in the middle of a backlog; after the next boot nothing is lost or doubled.
func TestBoot(t *testing.T) {
	if testing.Short() {
		return // make boot-test: minutes of emulation
	}
	ctx, cancel := context.WithTimeout(t.Context(), 80*time.Minute)
	defer cancel()
	cache, err := boards.Prepare(ctx, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range boards.All {
		if b.Inputs() {
			t.Run(b.Name, func(t *testing.T) { bootOn(ctx, t, cache, b) })
		}
	}
}

func bootOn(ctx context.Context, t *testing.T, cache boards.Cache, board boards.Board) {
	// i2c-dev is the package's to load, GPIO and network are the board's.
	var modules []string
	for _, m := range board.Modules {
		if m != "i2c-dev" {
			modules = append(modules, m)
		}
	}
	board.Modules = modules
	target := board.GOARCH
	if board.GOARM != "" {
		target += "-" + board.GOARM
	}
	disk := makeDisk(ctx, t, board, build(t, target))
	guest := compile(t, "guest", "./guest", "GOOS=linux", "GOARCH="+board.GOARCH, "GOARM="+board.GOARM)
	pipe := compile(t, "pipe", "../boards/pipe")
	init, err := os.ReadFile(guest)
	if err != nil {
		t.Fatal(err)
	}
	w := watch(t)
	start := func() (*boards.Machine, time.Time) {
		m, err := boards.Start(ctx, cache, board, t.TempDir(), pipe, w.Addr(), disk, map[string][]byte{"init": init})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			m.PowerOff()
			if t.Failed() {
				t.Logf("console:\n%s", tail(m.Log(), 6000))
			}
		})
		return m, time.Now()
	}
	m, began := start()
	told := map[string]bool{}
	// listen promises the judge every event that the console has told of.
	listen := func() int {
		for _, l := range accepted.FindAllStringSubmatch(m.Log(), -1) {
			if n, err := strconv.Atoi(l[1]); err == nil && !told[l[2]] {
				told[l[2]] = true
				w.Accept(source, l[2], verify.Mark{Producer: 1, Number: n})
			}
		}
		return len(told)
	}
	wait(t, "systemd", 15*time.Minute, func() bool { return strings.Contains(m.Log(), "UP ") })
	t.Logf("power on to multi-user: %.0f s", time.Since(began).Seconds())
	wait(t, "installation", 10*time.Minute, func() bool { return strings.Contains(m.Log(), "INSTALLED ") })
	t.Logf("dpkg --install with start of the unit: %.0f s by the board's clock", clock(m.Log(), "INSTALLED")-clock(m.Log(), "UP"))
	wait(t, "first reading", 5*time.Minute, func() bool { return !math.IsNaN(temperature(w)) })
	t.Logf("power on to first reading at the broker: %.0f s", time.Since(began).Seconds())

	if err := m.SetTemperature(31500); err != nil {
		t.Fatal(err)
	}
	wait(t, "31.5 °C", time.Minute, func() bool { return math.Abs(temperature(w)-31.5) < 0.1 })
	if err := board.Lines.Drive(m, board.In, true); err != nil {
		t.Fatal(err)
	}
	wait(t, "the door's event", time.Minute, func() bool { return w.topic("event/door") != "" })
	wait(t, "10 events", 5*time.Minute, func() bool { return listen() >= 10 && w.Missing() == 0 })

	if err := w.Stop(); err != nil {
		t.Fatal(err)
	}
	before := listen()
	wait(t, "a backlog of 30", 10*time.Minute, func() bool { return listen() >= before+30 })
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	full := w.Missing()
	wait(t, "the first of the backlog", 2*time.Minute, func() bool { listen(); return w.Missing() != full })
	m.PowerOff()
	listen()
	t.Logf("power cut with %d of %d accepted events not delivered", w.Missing(), len(told))

	w.forget()
	m, began = start()
	wait(t, "the first reading after the power cut", 15*time.Minute, func() bool { return !math.IsNaN(temperature(w)) })
	t.Logf("power on to first reading, installed: %.0f s", time.Since(began).Seconds())
	count := len(told)
	wait(t, "new events", 5*time.Minute, func() bool { return listen() >= count+5 })
	m.PowerOff()
	listen()
	wait(t, "every accepted event", time.Minute, func() bool { return w.Missing() <= 5 }) // the newest may still lie on the board
	v := w.Verdict()
	t.Log(v)
	if len(v.Doubled)+len(v.Disorder)+len(v.Gaps)+len(v.Strange) > 0 {
		t.Errorf("doubled %v disorder %v gaps %v strange %v", v.Doubled, v.Disorder, v.Gaps, v.Strange)
	}
}

var accepted = regexp.MustCompile(`ACCEPTED (\d+) ([0-9a-f]{8}-\d{16})`)

func clock(log, word string) float64 {
	m := regexp.MustCompile(word + ` ([0-9.]+)`).FindStringSubmatch(log)
	if m == nil {
		return math.NaN()
	}
	v, _ := strconv.ParseFloat(m[1], 64)
	return v
}

func temperature(w *watcher) float64 {
	var r struct {
		T *float64 `json:"temperature_celsius"`
	}
	if json.Unmarshal([]byte(w.topic("sensor/cabinet")), &r) != nil || r.T == nil {
		return math.NaN()
	}
	return *r.T
}

func compile(t *testing.T, out, pkg string, env ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), out)
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, pkg)
	cmd.Env = append(os.Environ(), append(env, "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")...)
	if err := run(cmd); err != nil {
		t.Fatal(err)
	}
	return path
}

// makeDisk is an SD card with the Debian system, the package beside it, and what the test wants to happen.
func makeDisk(ctx context.Context, t *testing.T, board boards.Board, deb string) string {
	t.Helper()
	lower, err := Root(ctx, board.Debian, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "root")
	if err := run(exec.CommandContext(ctx, "cp", "-a", lower, root)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"root/fieldagent.deb": string(data), "root/first.sh": firstBoot, "root/producer.sh": producer,
		"etc/fieldagent/conf.d/10-test.yaml":   fmt.Sprintf(boardConfig, board.Bus, board.In),
		"etc/systemd/system/first.service":     fmt.Sprintf(units, "oneshot", "first", "RemainAfterExit=yes"),
		"etc/systemd/system/producer.service":  strings.Replace(fmt.Sprintf(units, "simple", "producer", "Restart=always"), "After=basic.target", "After=first.service", 1),
		"etc/systemd/network/10-wired.network": "[Match]\nName=eth0\n[Network]\nAddress=10.0.2.15/24\n", // a board may have more, with no cable
		"etc/systemd/network/99-default.link":  "",                                                      // the kernel's names
		"etc/fstab":                            "", "etc/hostname": "board\n", "etc/hosts": "127.0.0.1 localhost board\n",
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	wants := filepath.Join(root, "etc/systemd/system/multi-user.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"first.service": "/etc/systemd/system/first.service", "producer.service": "/etc/systemd/system/producer.service", "systemd-networkd.service": "/lib/systemd/system/systemd-networkd.service"} {
		if err := os.Symlink(target, filepath.Join(wants, name)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	addModule(t, board.Debian, root)
	image := filepath.Join(t.TempDir(), "card")
	if err := run(exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf("truncate -s 1G %s && PATH=$PATH:/usr/sbin:/sbin mkfs.ext4 -q -d %s %s", image, root, image))); err != nil {
		t.Fatal(err)
	}
	return image
}

// addModule puts i2c-dev where modprobe of the board's kernel finds it.
func addModule(t *testing.T, arch, root string) {
	t.Helper()
	base, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(base, "fieldagent", "boards-1", arch, "lib", "modules")
	found := ""
	_ = filepath.WalkDir(tree, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "i2c-dev.ko" {
			found = p
		}
		return nil
	})
	rel, err := filepath.Rel(tree, found)
	if found == "" || err != nil {
		t.Fatalf("no i2c-dev.ko in %s", tree)
	}
	version, _, _ := strings.Cut(rel, "/")
	to := filepath.Join(root, "usr/lib/modules", rel)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := run(exec.Command("cp", found, to)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(emulator[arch].name, "-0", "depmod", "-L", root, filepath.Join(root, "usr/bin/kmod"), "-b", root, version)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := run(cmd); err != nil {
		t.Fatal(err)
	}
}
