package powercut

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"fieldagent/queue"
)

const (
	ext4Size   = 16 << 20
	ext4Sector = 4096
	ext4File   = "disk.img"
)

// Ext4 is a disk that holds one file, an empty ext4 file system.
func Ext4(scratch string) (Image, error) {
	name := filepath.Join(scratch, ext4File)
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		return Image{}, err
	}
	if err := os.Truncate(name, ext4Size); err != nil {
		return Image{}, err
	}
	if err := command("mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0", name); err != nil {
		return Image{}, err
	}
	data, err := os.ReadFile(name)
	img := Empty()
	img.Dirs[Root][ext4File], img.Files[Root+1] = Root+1, data
	return img, errors.Join(err, os.Remove(name))
}

// MountExt4 mounts the file system in image on dir. It needs root and loop devices.
func MountExt4(image, dir string) (unmount func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	out, err := exec.Command("losetup", "--find", "--show", image).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("no loop device (needs root, /dev/loop-control): %w: %s", err, out)
	}
	loop := strings.TrimSpace(string(out))
	if err := command("mount", "-t", "ext4", "-o", "noatime", loop, dir); err != nil {
		return nil, errors.Join(err, command("losetup", "-d", loop))
	}
	return func() error {
		err := command("umount", dir)
		for i := 0; err != nil && i < 50; i++ { // a process that was killed may still be going
			time.Sleep(20 * time.Millisecond)
			err = command("umount", dir)
		}
		return errors.Join(err, command("losetup", "-d", loop))
	}, nil
}

// RecordExt4 runs lives on an ext4 whose block device is recorded. Facts go to notes.
func RecordExt4(scratch string, lives func(notes, dir string) error) (*Journal, error) {
	img, err := Ext4(scratch)
	if err != nil {
		return nil, err
	}
	j, err := Record(filepath.Join(scratch, "device"), img, func(device string) error {
		dir := filepath.Join(scratch, "ext4")
		unmount, err := MountExt4(filepath.Join(device, ext4File), dir)
		if err != nil {
			return err
		}
		return errors.Join(lives(device, dir), unmount())
	})
	if j != nil {
		j.Sector = ext4Sector
	}
	return j, err
}

// CheckExt4 lays out a block device as a cut has left it, mounts it, and opens the folder named state on it.
func CheckExt4(opt queue.Options) func(Image, *Model, string) error {
	return func(img Image, m *Model, scratch string) error {
		if err := img.Lay(scratch); err != nil {
			return err
		}
		dir := filepath.Join(scratch, "ext4")
		unmount, err := MountExt4(filepath.Join(scratch, ext4File), dir)
		if err != nil {
			return err
		}
		return errors.Join(Check(filepath.Join(dir, "state"), m, opt), unmount())
	}
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
