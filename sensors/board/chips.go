package board

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/warthog618/go-gpiocdev/uapi"
)

// Chip is a GPIO chip as the kernel shows it.
type Chip struct {
	Path  string // /dev/gpiochip0; the number changes from boot to boot
	Name  string // gpiochip0
	Label string // pinctrl-bcm2711: what configurations name
	Lines []Line
}

// Line is one line of a chip.
type Line struct {
	Offset   int
	Name     string // GPIO17; "" when the board gives it none
	Consumer string // who holds it; "" when free
	Output   bool
	Used     bool
}

// Chips lists the GPIO chips below dir (/dev), each once, with their lines. Chips that cannot be opened are in err; the others are returned all the same.
func Chips(dir string) ([]Chip, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "gpiochip*"))
	if err != nil {
		return nil, err
	}
	sort.Strings(paths)
	var chips []Chip
	var faults []error
	seen := map[string]bool{}
	for _, p := range paths {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			p = real // Raspberry Pi OS keeps compatibility symlinks: one chip, two names
		}
		if seen[p] {
			continue
		}
		seen[p] = true
		c, err := readChip(p)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		chips = append(chips, c)
	}
	return chips, errors.Join(faults...)
}

func openChip(path string) (*os.File, uapi.ChipInfo, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, uapi.ChipInfo{}, fmt.Errorf("%s: no right to open it; add the agent's user to its group: sudo usermod -aG gpio fieldagent", path)
	case err != nil:
		return nil, uapi.ChipInfo{}, err
	}
	info, err := uapi.GetChipInfo(f.Fd())
	if err != nil {
		f.Close()
		return nil, info, fmt.Errorf("%s: not a GPIO chip: %w", path, err)
	}
	return f, info, nil
}

func readChip(path string) (Chip, error) {
	f, info, err := openChip(path)
	if err != nil {
		return Chip{}, err
	}
	defer f.Close()
	c := Chip{Path: path, Name: text(info.Name[:]), Label: text(info.Label[:])}
	for o := range int(info.Lines) {
		li, err := uapi.GetLineInfoV2(f.Fd(), o)
		if err != nil {
			return Chip{}, fmt.Errorf("%s line %d: %w; the GPIO interface v2 needs Linux 5.10 or later", path, o, err)
		}
		c.Lines = append(c.Lines, Line{Offset: o, Name: text(li.Name[:]), Consumer: text(li.Consumer[:]), Output: li.Flags.IsOutput(), Used: li.Flags.IsUsed()})
	}
	return c, nil
}

// Interrupts says whether a chip makes interrupts of edges: "yes" or "no" by its device tree, "unknown" without one. No line is touched for it.
func (c Chip) Interrupts(files fs.FS) string {
	dir := "sys/bus/gpio/devices/" + c.Name
	if _, err := fs.Stat(files, dir+"/of_node"); err != nil {
		if _, err := fs.Stat(files, dir+"/device/of_node"); err != nil {
			return "unknown"
		}
		dir += "/device"
	}
	if _, err := fs.Stat(files, dir+"/of_node/interrupt-controller"); err != nil {
		return "no"
	}
	return "yes"
}

func text(b []byte) string { return uapi.BytesToString(b) }

// find returns the chip and the line that a configuration names: by line name, or by chip label and offset or line name.
func find(chips []Chip, name string) (Chip, Line, error) {
	label, rest, byLabel := strings.Cut(name, ":")
	if !byLabel {
		label, rest = "", name
	}
	type hit struct {
		c Chip
		l Line
	}
	var hits []hit
	for _, c := range chips {
		if byLabel && c.Label != label {
			continue
		}
		for _, l := range c.Lines {
			n, err := strconv.Atoi(rest)
			if rest != "" && l.Name == rest || byLabel && err == nil && n == l.Offset {
				hits = append(hits, hit{c, l})
			}
		}
	}
	switch len(hits) {
	case 1:
		return hits[0].c, hits[0].l, nil
	case 0:
		return Chip{}, Line{}, fmt.Errorf("line %q: no such line; see `fieldagent scan` for the lines of this board (%s)", name, labels(chips))
	}
	return Chip{}, Line{}, fmt.Errorf("line %q: %d lines have that name; write chip label and offset, such as %s:%d", name, len(hits), hits[0].c.Label, hits[0].l.Offset)
}

func labels(chips []Chip) string {
	if len(chips) == 0 {
		return "no GPIO chip found below /dev: is this a board with GPIO lines, and may this user open them?"
	}
	var s []string
	for _, c := range chips {
		s = append(s, fmt.Sprintf("%s with %d lines", c.Label, len(c.Lines)))
	}
	return strings.Join(s, ", ")
}
