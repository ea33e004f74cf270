package install

import (
	"strings"
	"testing"
	"time"
)

// TestFaultsAreNamed breaks an installation in the ways that installers do. The unit's state, its STATUS line and doctor must each name the cause.
func TestFaultsAreNamed(t *testing.T) {
	deb := build(t, "amd64")
	w := watch(t)
	c := boot(t)
	g, err := newGate(c.leader, w.Addr())
	if err != nil {
		t.Fatal(err)
	}
	g.open(0)
	c.must("dpkg -i " + c.put(deb))
	wired := strings.Replace(boxConfig, "sensors: [", "sensors: [{name: cabinet, driver: lm75, bus: i2c-1, address: 0x48, every: 1s}, ", 1)
	healthy := func() {
		t.Helper()
		c.write("/etc/fieldagent/fieldagent.yaml", boxConfig)
		c.must("systemctl reset-failed fieldagent; systemctl restart fieldagent")
		wait(t, "a healthy agent", time.Minute, func() bool { return strings.HasPrefix(c.unit("StatusText"), "Connected to mqtt://127.0.0.1:1883") })
	}
	healthy()
	if out := c.try("fieldagent doctor"); strings.Contains(out, "FAULT") || !strings.Contains(out, "ok    publish to fieldagent/box/doctor") {
		t.Errorf("doctor on a healthy installation:\n%s", out)
	}
	c.must("fieldagent diag -o /root/diag.tar.gz && tar -tzf /root/diag.tar.gz | grep -q journal.txt")

	for _, f := range []struct {
		name, config, do, undo string
		state                  string   // of the unit
		status                 []string // in the STATUS line
		doctor                 []string
	}{
		{"i2c off", wired, "", "", "active running",
			[]string{"sensor cabinet", "there is no /dev/i2c-1", "i2c_arm=on"}, []string{"FAULT bus i2c-1", "sudo modprobe i2c-dev"}},
		// A stand-in that every container may open: whether the service may is all that counts here.
		{"device group missing", wired, "mknod /dev/i2c-1 c 1 3 && chgrp i2c /dev/i2c-1 && chmod 660 /dev/i2c-1 && sed -i '/^i2c:/s/fieldagent//' /etc/group /etc/gshadow", "rm /dev/i2c-1; systemd-sysusers", "active running",
			[]string{"sensor cabinet", "no right to open /dev/i2c-1", "usermod -aG i2c fieldagent"}, []string{"FAULT group i2c: fieldagent is not in it", "usermod -aG i2c fieldagent"}},
		{"wrong broker", strings.Replace(boxConfig, ":1883", ":1884", 1), "", "", "active running",
			[]string{"No broker: mqtt://127.0.0.1:1884", "connection refused"}, []string{"FAULT TCP to 127.0.0.1:1884", "nc -vz 127.0.0.1 1884"}},
		{"wrong name", strings.Replace(boxConfig, "127.0.0.1", "broker.invalid", 1), "", "", "active running",
			[]string{"No broker", "the name broker.invalid cannot be looked up"}, []string{"FAULT name broker.invalid", "mqtt.servers"}},
		// Nothing is delivered here: else the events' pages are used again, and the disk that is full refuses none.
		{"full disk", strings.Replace(boxConfig, ":1883", ":1884", 1), "systemctl stop fieldagent; mount -t tmpfs -o size=4m,uid=$(id -u fieldagent),gid=$(id -g fieldagent),mode=700 tmpfs /var/lib/fieldagent; systemctl start fieldagent; head -c 8m /dev/zero > /var/lib/fieldagent/fill; for i in $(seq 40); do fieldagent emit big \"{\\\"x\\\":\\\"$(head -c 60000 /dev/zero | tr '\\0' y)\\\"}\" || break; done",
			"systemctl stop fieldagent; umount /var/lib/fieldagent", "active running",
			[]string{"The disk refuses events", "no space left on device"}, []string{"FAULT space in /var/lib/fieldagent: only", "journalctl --vacuum-size"}},
		{"read-only state", boxConfig, "systemctl stop fieldagent; mount -t tmpfs -o size=4m,uid=$(id -u fieldagent),gid=$(id -g fieldagent),mode=700 tmpfs /var/lib/fieldagent; mount -o remount,ro /var/lib/fieldagent",
			"systemctl stop fieldagent; umount /var/lib/fieldagent", "active running",
			[]string{"The disk refuses events", "read-only file system", "remount"}, []string{"FAULT state folder /var/lib/fieldagent: the file system is read-only: sudo mount -o remount,rw /var/lib/fieldagent", "FAULT outbox: "}},
		{"bad configuration", boxConfig + "sensor: []\n", "", "", "failed failed",
			[]string{"fieldagent.yaml:4", "sensor"}, []string{"FAULT configuration", "FAULT service: failed", "sudo systemctl restart fieldagent"}},
		{"missing credential", boxConfig, "mkdir -p /etc/systemd/system/fieldagent.service.d; printf '[Service]\\nLoadCredential=mqtt-password:/nowhere\\n' > /etc/systemd/system/fieldagent.service.d/secret.conf; systemctl daemon-reload",
			"rm -r /etc/systemd/system/fieldagent.service.d; systemctl daemon-reload", "activating auto-restart",
			nil, []string{"FAULT service: auto-restart", "LoadCredential= is missing (243/CREDENTIALS)"}}, // systemd never starts it: it has no STATUS line
	} {
		t.Run(f.name, func(t *testing.T) {
			c.write("/etc/fieldagent/fieldagent.yaml", f.config)
			if f.do != "" {
				c.try(f.do)
			}
			if f.name != "full disk" {
				c.try("systemctl restart fieldagent")
			}
			var state, status, doctor string
			missing := ""
			deadline := time.Now().Add(90 * time.Second)
			for {
				state, status = c.unit("ActiveState")+" "+c.unit("SubState"), c.unit("StatusText")
				doctor = c.try("fieldagent doctor")
				missing = ""
				if state != f.state {
					missing = "the unit's state is " + state
				}
				for _, s := range f.status {
					if !strings.Contains(status, s) {
						missing = "STATUS has no " + s
					}
				}
				for _, s := range f.doctor {
					if !strings.Contains(doctor, s) {
						missing = "doctor has no " + s
					}
				}
				if missing == "" || time.Now().After(deadline) {
					break
				}
				<-time.After(300 * time.Millisecond)
			}
			if missing != "" {
				t.Errorf("%s\nstate: %s\nSTATUS: %s\ndoctor:\n%s", missing, state, status, doctor)
			} else {
				t.Logf("%s | %s", state, status)
			}
			if f.undo != "" {
				c.try(f.undo)
			}
			healthy()
		})
	}
	t.Run("read-only root", func(t *testing.T) {
		c.must("systemctl stop fieldagent")
		c.cut()
		c.start("--read-only") // all of it, /var too, as an overlay without its upper half or a card that has gone read-only
		g, err := newGate(c.leader, w.Addr())
		if err != nil {
			t.Fatal(err)
		}
		g.open(0)
		if out := c.try("touch /var/lib/fieldagent/x"); !strings.Contains(out, "Read-only file system") {
			t.Fatalf("the root can be written: %s", out)
		}
		w.forget()
		var state, status, doctor string
		if !waits(90*time.Second, func() bool {
			state, status, doctor = c.unit("ActiveState")+" "+c.unit("SubState"), c.unit("StatusText"), c.try("fieldagent doctor")
			return state == "active running" && strings.Contains(status, "The disk refuses events") && strings.Contains(status, "read-only file system") &&
				strings.Contains(doctor, "FAULT state folder /var/lib/fieldagent: the file system is read-only") && w.topic("sensor/board") != ""
		}) {
			t.Errorf("state: %s\nSTATUS: %s\ndoctor:\n%s\nreading: %q", state, status, doctor, w.topic("sensor/board"))
		}
	})
}
