package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"fieldagent/queue"

	"golang.org/x/sys/unix"
)

// lowSpace is how little free space is a fault: the outbox needs room.
const lowSpace = 64 << 20

// state looks at the folder, the space and the file.
func (d *doctor) state() {
	dir := d.p.state
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if ro := readOnly(filepath.Dir(dir)); ro != nil {
			d.check("state folder "+dir, ro)
			return
		}
		d.note("state folder %s is not there yet; the service makes it when it starts", dir)
		return
	case err == nil && !info.IsDir():
		err = errors.New("is no folder")
	case err == nil:
		err = readOnly(dir)
	}
	if err == nil && !d.who.may(info, 2) {
		err = fmt.Errorf("%s cannot write there: sudo chown -R %s: %s", d.who.name, d.who.name, dir)
	}
	if !d.check("state folder "+dir, err) {
		return
	}
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil {
		free := int64(st.Bavail) * int64(st.Bsize)
		if free < lowSpace {
			d.check("space in "+dir, fmt.Errorf("only %s are free; the outbox needs room: sudo journalctl --vacuum-size=50M, sudo apt-get clean, or a lower outbox.max_size", size(free)))
		} else {
			d.check(fmt.Sprintf("space in %s: %s free", dir, size(free)), nil)
		}
		if st.Files > 0 && st.Ffree < 100 {
			d.check("space in "+dir, fmt.Errorf("only %d files more can be made (df -i): remove some", st.Ffree))
		}
	}
	d.stateFile(dir)
	old, _ := filepath.Glob(filepath.Join(dir, "fieldagent.db.damaged-*"))
	for _, f := range old {
		d.note("%s was damaged and set aside; what could be read was kept. Check the card, then remove it", f)
	}
}

func (d *doctor) stateFile(dir string) {
	q, err := queue.Open(dir, queue.Options{ReadOnly: true})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.note("there is no state file in %s yet; the first start makes it", dir)
	case errors.Is(err, queue.ErrLocked): // the agent has it: it answers for itself
	case errors.Is(err, queue.ErrNewer):
		d.check("state file", fmt.Errorf("%w; it is untouched: install the newer package again, or move %s away (sudo mv %s %s.newer) and lose what is in it", err, dir, dir, dir))
	case errors.Is(err, fs.ErrPermission):
		d.note("the state file is for the service only: sudo fieldagent doctor")
	case err != nil:
		d.check("state file", err)
	default:
		defer q.Close()
		s := q.Stats()
		d.check(fmt.Sprintf("state file: %d events wait, %s", s.Depth, size(s.Bytes)), nil)
		if s.Dead > 0 {
			d.note("%d dead letters: fieldagent outbox ls --only dead shows why", s.Dead)
		}
	}
}

// readOnly says whether the file system of dir takes no writes.
func readOnly(dir string) error {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil && st.Flags&unix.ST_RDONLY != 0 {
		return fmt.Errorf("the file system is read-only: sudo mount -o remount,rw %s (dmesg says whether the card failed); on a read-only root give /var/lib/fieldagent a partition of its own", mountOf(dir))
	}
	return nil
}

// mountOf finds the mount point above dir: the last folder on the same device.
func mountOf(dir string) string {
	var here, above unix.Stat_t
	for dir != "/" && unix.Stat(dir, &here) == nil && unix.Stat(filepath.Dir(dir), &above) == nil && here.Dev == above.Dev {
		dir = filepath.Dir(dir)
	}
	return dir
}
