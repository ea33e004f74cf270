package diskfault

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fieldagent/integration/broker"
)

const nowhere = "mqtt://127.0.0.1:9"

// fill writes until nothing more fits, and returns what to remove.
func fill(t *testing.T, dir string) string {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	return name
}

func TestFullDisk(t *testing.T) {
	a, filler := fullDisk(t, nowhere)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	a.await("the store to recover", func(s status) bool { return s.Outbox.Error == "" })
	if why := a.emit(1000); why != "" {
		t.Errorf("with space again: %s", why)
	}
	a.end()
	a.judge()
}

// TestFullDiskDelivers: what was accepted leaves, and there is room for small events again, though nobody has tidied the disk.
func TestFullDiskDelivers(t *testing.T) {
	b, err := broker.Start("mosquitto", t.TempDir(), broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	a, _ := fullDisk(t, "mqtt://"+b.Addr())
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	a.await("the events to be delivered", func(s status) bool { return s.Outbox.Depth == 0 })
	if why := a.emit(1000); why != "" {
		t.Errorf("with the old events gone: %s", why)
	}
	a.await("the last event to be delivered", func(s status) bool { return s.Outbox.Depth == 0 })
	a.end()
}

// fullDisk starts an agent on a disk with room for a few small commits and no event more: it says so, and its sensors go on.
func fullDisk(t *testing.T, server string) (a *agent, filler string) {
	dir := t.TempDir()
	run(t, "mount", "-t", "tmpfs", "-o", "size=6m", "diskfault", dir)
	t.Cleanup(func() { run(t, "umount", "-l", dir) })
	a = start(t, filepath.Join(dir, "state"), server)
	for range 3 {
		if why := a.emit(1000); why != "" {
			t.Fatal(why)
		}
	}
	filler = fill(t, dir)
	why := ""
	for range 60 {
		if why = a.emit(100_000); why != "" {
			break
		}
	}
	if !strings.Contains(why, "no space left") {
		t.Fatalf("on a full disk an event is refused with %q", why)
	}
	s := a.await("the status to say it", func(s status) bool { return s.Outbox.Error != "" })
	if !strings.Contains(s.Outbox.Error, "free disk space") {
		t.Errorf("the status says %q", s.Outbox.Error)
	}
	a.sensorsGoOn()
	info, err := os.Stat(filler)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filler, info.Size()-40<<10); err != nil { // room for a small commit, not for what was refused
		t.Fatal(err)
	}
	a.await("the store to take a small commit", func(s status) bool { return strings.Contains(s.Outbox.Error, "less is stored") })
	a.sensorsGoOn()
	if s, err := a.status(); err != nil || !strings.Contains(s.Outbox.Error, "no space left") {
		t.Errorf("a full disk that takes small commits is no error: %+v %v", s.Outbox, err)
	}
	return a, filler
}

// TestFullAtFirstStart starts on a disk that has no room for a state.
func TestFullAtFirstStart(t *testing.T) {
	dir := t.TempDir()
	run(t, "mount", "-t", "tmpfs", "-o", "size=4m", "diskfault", dir)
	t.Cleanup(func() { run(t, "umount", "-l", dir) })
	filler := fill(t, dir)
	a := start(t, filepath.Join(dir, "state"), nowhere)
	a.await("the status to say it", func(s status) bool { return strings.Contains(s.Outbox.Error, "no space left") })
	if why := a.emit(100); why == "" {
		t.Error("an event is accepted on a full disk")
	}
	a.sensorsGoOn()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	a.await("the store to come", func(s status) bool { return s.Outbox.Error == "" })
	if why := a.emit(100); why != "" {
		t.Errorf("with space: %s", why)
	}
	a.end()
	a.judge()
}

// TestFailingCalls makes single system calls of the agent fail. Opening needs some six fsyncs in a row: where each third one fails, no store comes.
func TestFailingCalls(t *testing.T) {
	for _, inject := range []string{"fdatasync:error=EIO:when=3+5", "fdatasync:error=ENOSPC:when=2+7", "pwrite64:error=EIO:when=5+9", "pwrite64:error=ENOSPC:when=4+11", "fsync:error=EIO:when=6+13"} {
		t.Run(inject, func(t *testing.T) {
			a := start(t, filepath.Join(t.TempDir(), "state"), nowhere, "strace", "-f", "-q", "-o", os.DevNull, "-e", "trace="+strings.Split(inject, ":")[0], "-e", "inject="+inject)
			a.await("the store to come", func(s status) bool { return s.Outbox.Error == "" })
			for range 40 {
				a.emit(200)
			}
			if len(a.accepted) == 0 {
				t.Error("nothing was accepted between the faults")
			}
			if !strings.HasPrefix(inject, "fsync") && len(a.accepted) == a.n {
				t.Error("no fault has hit")
			}
			a.sensorsGoOn()
			a.end()
			a.judge()
		})
	}
}

// disk makes a small ext4 on a loop device and mounts it on dir.
func disk(t *testing.T, dir string) (loop string) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 16<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", "-F", "-b", "4096", image)
	loop = run(t, "losetup", "--find", "--show", image)
	t.Cleanup(func() { run(t, "losetup", "-d", loop) })
	run(t, "mount", "-o", "errors=remount-ro", loop, dir)
	t.Cleanup(func() { run(t, "umount", "-l", dir) })
	return loop
}

// TestReadOnly has the file system turn read-only under the agent, as ext4 does after an error, and starts the agent on one that is.
func TestReadOnly(t *testing.T) {
	b, err := broker.Start("mosquitto", t.TempDir(), broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	dir := t.TempDir()
	loop := disk(t, dir)
	a := start(t, filepath.Join(dir, "state"), "mqtt://"+b.Addr())
	a.await("the broker", func(s status) bool { return s.Broker.Connected })
	if why := a.emit(100); why != "" {
		t.Fatal(why)
	}
	a.await("the event to be delivered", func(s status) bool { return s.Outbox.Depth == 0 })
	if err := os.WriteFile(filepath.Join("/sys/fs/ext4", filepath.Base(loop), "trigger_fs_error"), []byte("a test"), 0); err != nil {
		t.Fatal(err)
	}
	why := a.emit(100)
	if why == "" {
		t.Error("an event is accepted on a read-only file system")
	}
	s := a.await("the status to say it", func(s status) bool { return s.Outbox.Error != "" })
	t.Logf("refused with %q, the status says %q", why, s.Outbox.Error)
	readingsArrive(t, a)
	a.end()

	run(t, "umount", dir)
	run(t, "mount", "-o", "ro", loop, dir)
	a = start(t, filepath.Join(dir, "state"), "mqtt://"+b.Addr())
	a.await("the status to say it", func(s status) bool { return strings.Contains(s.Outbox.Error, "read-only") })
	if why := a.emit(100); why == "" {
		t.Error("an event is accepted on a read-only file system")
	}
	readingsArrive(t, a)
	run(t, "mount", "-o", "remount,rw", dir)
	a.await("the store to come", func(s status) bool { return s.Outbox.Error == "" })
	if why := a.emit(100); why != "" {
		t.Errorf("after the remount: %s", why)
	}
	a.await("the event to be delivered", func(s status) bool { return s.Outbox.Depth == 0 })
	a.end()
}

// readingsArrive waits for ten more readings at the broker.
func readingsArrive(t *testing.T, a *agent) {
	t.Helper()
	before := a.await("the connection", func(s status) bool { return s.Broker.Connected }).Readings.Sent
	a.await("readings to be sent", func(s status) bool { return s.Readings.Sent >= before+10 })
}

// TestDamagedFiles starts the agent on state files that are damaged: it runs, and an alarm says what was lost.
func TestDamagedFiles(t *testing.T) {
	for name, damage := range map[string]func(data []byte) []byte{
		"zeroed page": zeroNewest,
		"zeroed meta": func(data []byte) []byte { clear(data[:2*4096]); return data },
		"truncated":   func(data []byte) []byte { return data[:5*4096+100] },
		"empty":       func([]byte) []byte { return nil },
		"garbage":     func(data []byte) []byte { _, _ = rand.Read(data); return data },
		"text":        func([]byte) []byte { return bytes.Repeat([]byte("no database\n"), 9000) },
	} {
		t.Run(name, func(t *testing.T) {
			state := filepath.Join(t.TempDir(), "state")
			a := start(t, state, nowhere)
			for range 20 {
				if why := a.emit(300); why != "" {
					t.Fatal(why)
				}
			}
			a.end()
			file := filepath.Join(state, "fieldagent.db")
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, damage(data), 0o600); err != nil {
				t.Fatal(err)
			}
			for life := range 2 {
				a = start(t, state, nowhere)
				a.await("the store to come", func(s status) bool { return s.Outbox.Error == "" })
				if why := a.emit(300); why != "" {
					t.Fatal(why)
				}
				if n := a.alarms(); n != 1 {
					t.Errorf("start %d: %d alarms", life+1, n)
				}
				a.end()
			}
			aside, err := filepath.Glob(file + ".damaged-*")
			if len(aside) != 1 {
				t.Errorf("set aside: %v %v", aside, err)
			}
		})
	}
}

// zeroNewest zeroes the pages that hold the newest event.
func zeroNewest(data []byte) []byte {
	for at := 0; at < len(data); at += 4096 {
		if page := data[at : at+4096]; bytes.Contains(page, []byte(`"token-20"`)) {
			clear(page)
		}
	}
	return data
}

// alarms counts the alarm events about the state that wait in the outbox.
func (a *agent) alarms() int {
	a.t.Helper()
	r, err := a.client.Get("http://agent/v1/outbox/export")
	if err != nil {
		a.t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		a.t.Fatal(r.Status)
	}
	n := 0
	for d := json.NewDecoder(r.Body); ; {
		var e struct {
			Type string
			Data struct {
				Alarm string
				Lost  []string
			}
		}
		if err := d.Decode(&e); err != nil {
			return n
		}
		if e.Type == "alarm" && e.Data.Alarm == "state damaged" {
			n++
			a.t.Log(fmt.Sprint("lost: ", e.Data.Lost))
		}
	}
}
