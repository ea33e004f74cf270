package main

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// clock tells whether the time can be trusted, and what keeps it over a power cut.
func (d *doctor) clock() {
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	d.clockSays(err, state == unix.TIME_ERROR && tx.Status&unix.STA_UNSYNC != 0)
}

func (d *doctor) clockSays(err error, unset bool) {
	switch {
	case err != nil:
		d.note("clock: %v", err)
	case unset:
		d.note("clock: no time service has set it, events say clock unsynced: timedatectl set-ntp true (needs systemd-timesyncd or chrony, and a way to a time server)")
	default:
		d.check("clock: set by a time service", nil)
	}
	if !d.exists("sys/class/rtc/rtc0") {
		d.note("clock: no battery-backed clock: after a power cut times are lower bounds until a time service answers (an RTC helps: dtoverlay=i2c-rtc,ds3231)")
	}
}

// power reads the board's own warnings: Raspberry Pi's firmware, and any supply monitor with an alarm.
func (d *doctor) power() {
	files := os.DirFS(d.root)
	alarms, _ := fs.Glob(files, "sys/class/hwmon/hwmon*/in*_lcrit_alarm")
	looked := len(alarms) > 0
	low := false
	for _, a := range alarms {
		if d.read(a) == "1" {
			low = true
			d.check("power: "+d.read(path.Join(path.Dir(a), "name")), errors.New("under-voltage now or since boot: use a supply and cable for this board (5.1 V, 3 A; Pi 5: 5 A); writes can be damaged by it"))
		}
	}
	for _, f := range []string{"sys/devices/platform/soc/soc:firmware/get_throttled", "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"} {
		bits, err := strconv.ParseUint(d.read(f), 16, 32)
		if err != nil {
			continue
		}
		looked = true
		for _, w := range []struct {
			bit  uint
			text string
		}{
			{0, "under-voltage now: use a supply and cable for this board"},
			{2, "the processor is slowed down now: check supply and cooling"},
			{3, "the temperature limit is reached now: cool the board"},
			{16, "there was under-voltage since boot: use a supply and cable for this board"},
			{18, "the processor was slowed down since boot: check supply and cooling"},
		} {
			if bits>>w.bit&1 == 1 {
				low = true
				d.check("power", errors.New(w.text+" (vcgencmd get_throttled)"))
			}
		}
	}
	if looked && !low {
		d.check("power: no warnings", nil)
	}
}
