package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fieldagent/agent"
	"fieldagent/agent/config"
	"fieldagent/sensors/drivers"
)

const wired = `device: {id: pump-7}
sensors:
  - {name: cabinet, driver: bme280, bus: i2c-1}
  - {name: tank, driver: bme280, bus: i2c-1/0x70/3}
  - {name: stick, driver: bme280, bus: CH341}
  - {name: tilt, driver: adxl345, bus: spi0.0}
inputs: [{name: door, line: GPIO17}]
`

// TestDoctorNames breaks one thing of an installation at a time: the line must name it, and what mends it.
func TestDoctorNames(t *testing.T) {
	all := account{name: "fieldagent", uid: 990, groups: []uint32{990}, names: []string{"fieldagent", "i2c", "gpio"}}
	root := account{name: "root"}
	for _, c := range []struct {
		name  string
		files map[string]string
		who   account
		info  serviceInfo
		want  string
	}{
		{"group for SPI", nil, all, nil, "FAULT group spi: fieldagent is not in it"},
		{"SPI off", nil, all, nil, "FAULT bus spi0.0: there is no /dev/spidev0.0: is SPI on"},
		{"no multiplexer", map[string]string{"dev/i2c-1": ""}, root, nil, "FAULT bus i2c-1/0x70/3: the kernel knows no channel 3 of a multiplexer at 0x70"},
		{"bus below the multiplexer", nil, all, nil, "FAULT bus i2c-1/0x70/3: the module i2c-dev is not loaded"},
		{"adapter unplugged", map[string]string{"sys/bus/i2c/devices/i2c-1/name": "bcm2835\n"}, all, nil, `this machine has "bcm2835"`},
		{"groups", nil, account{name: "fieldagent", uid: 990}, nil, "FAULT group i2c: fieldagent is not in it: sudo groupadd -rf i2c && sudo usermod -aG i2c fieldagent"},
		{"user", nil, account{name: "fieldagent", err: os.ErrNotExist}, serviceInfo{"ActiveState": "failed"}, "FAULT user fieldagent: does not exist: sudo systemd-sysusers"},
		{"module", nil, all, nil, "FAULT bus i2c-1: the module i2c-dev is not loaded: sudo modprobe i2c-dev"},
		{"i2c off", map[string]string{"sys/module/i2c_dev/x": "", "boot/firmware/config.txt": "dtparam=audio=on\n"}, all, nil, "I2C is off: echo dtparam=i2c_arm=on | sudo tee -a /boot/firmware/config.txt && sudo reboot"},
		{"not rebooted", map[string]string{"sys/module/i2c_dev/x": "", "boot/firmware/config.txt": "dtparam=i2c_arm=on\n"}, all, nil, "sudo reboot"},
		{"other bus", map[string]string{"sys/module/i2c_dev/x": "", "dev/i2c-7": ""}, all, nil, "there is no /dev/i2c-1, only /dev/i2c-7"},
		{"no gpio", nil, all, nil, "FAULT GPIO: no /dev/gpiochip*"},
		{"rights", map[string]string{"dev/i2c-1": ""}, all, nil, "/dev/i2c-1 does not belong to group i2c: sudo udevadm control --reload"},
		{"under-voltage", map[string]string{"sys/class/hwmon/hwmon2/name": "rpi_volt\n", "sys/class/hwmon/hwmon2/in0_lcrit_alarm": "1\n"}, all, nil, "FAULT power: rpi_volt: under-voltage"},
		{"throttled", map[string]string{"sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n"}, all, nil, "FAULT power: there was under-voltage since boot"},
		{"bad file", nil, all, serviceInfo{"ActiveState": "failed", "SubState": "failed", "ExecMainStatus": "3", "StatusText": "fieldagent.yaml:3"}, "FAULT service: failed: fieldagent.yaml:3; the configuration has faults"},
		{"credential", nil, all, serviceInfo{"ActiveState": "activating", "SubState": "auto-restart", "ExecMainStatus": "243"}, "LoadCredential= is missing"},
		{"stopped", nil, all, serviceInfo{"ActiveState": "inactive", "SubState": "dead", "UnitFileState": "disabled"}, "sudo systemctl enable --now fieldagent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := examine(t, c.files, c.who, c.info)
			if !strings.Contains(out, c.want) {
				t.Errorf("no %q in\n%s", c.want, out)
			}
		})
	}
}

// A whole installation has no faults: else the lines above would prove nothing.
func TestDoctorIsContent(t *testing.T) {
	out := examine(t, map[string]string{"sys/module/i2c_dev/x": "", "dev/i2c-1": "", "dev/i2c-14": "", "dev/i2c-20": "", "dev/spidev0.0": "", "dev/gpiochip0": "", "sys/class/rtc/rtc0/x": "",
		"sys/bus/i2c/devices/i2c-20/name": "CH341\n", "sys/bus/i2c/devices/1-0070/channel-3": "-> ../i2c-14",
		"sys/class/hwmon/hwmon2/name": "rpi_volt\n", "sys/class/hwmon/hwmon2/in0_lcrit_alarm": "0\n"},
		account{name: "fieldagent", uid: uint32(os.Getuid()), names: []string{"i2c", "spi", "gpio"}}, serviceInfo{"ActiveState": "active", "NRestarts": "0", "StatusText": "Connected to x"})
	if strings.Contains(out, "FAULT") {
		t.Error(out)
	}
	for _, want := range []string{"ok    service runs: Connected to x", "ok    group i2c", "ok    bus i2c-1", "ok    bus i2c-1/0x70/3", "ok    bus CH341", "ok    bus spi0.0", "ok    GPIO /dev/gpiochip0", "ok    power: no warnings"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func examine(t *testing.T, files map[string]string, who account, info serviceInfo) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if to, ok := strings.CutPrefix(text, "-> "); ok {
			if err := os.Symlink(to, path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var cfg agent.Config
	if err := config.Load(&cfg, agent.ConfigOptions(drivers.All), config.Source{Name: "fieldagent.yaml", Data: []byte(wired)}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	d := &doctor{p: &program{stdout: &out, stderr: io.Discard}, root: root, who: who, info: info}
	d.unit()
	d.clockSays(nil, false)
	d.power()
	d.account(cfg)
	d.devices(cfg)
	return out.String()
}

func TestDoctorReadsMounts(t *testing.T) {
	if got := mountOf("/proc/self/fd"); got != "/proc" {
		t.Errorf("mountOf(/proc/self/fd) = %s", got)
	}
	if err := readOnly(t.TempDir()); err != nil {
		t.Errorf("a folder that takes writes: %v", err)
	}
}
