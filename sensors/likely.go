package sensors

import "periph.io/x/conn/v3/i2c"

// Likely returns the drivers whose chips can be at an address. When a chip there says what it is, that one is returned alone, and sure is true.
// Where a question could switch something, such as a relay behind an expander, none is asked.
func Likely(addr uint16, drivers []Driver, bus i2c.Bus) (likely []Driver, sure bool) {
	ask := bus != nil && !Delicate(addr)
	for _, d := range drivers {
		if !d.livesAt(addr) {
			continue
		}
		if !ask || len(d.IDs) == 0 {
			likely = append(likely, d)
			continue
		}
		if yes, err := d.Identify(bus, addr); err == nil && yes {
			return []Driver{d}, true
		}
	}
	return likely, false
}

// Delicate says that a chip at this address may take the question for an order: port expanders (0x20-0x27, 0x38-0x3f) set their pins from any byte,
// multiplexers (0x70-0x75) their channels, and some EEPROMs (0x50-0x57) are spoilt by a write that was cut short (i2cdetect(8)).
func Delicate(addr uint16) bool {
	switch {
	case addr >= 0x20 && addr <= 0x27, addr >= 0x38 && addr <= 0x3f, addr >= 0x50 && addr <= 0x57, addr >= 0x70 && addr <= 0x75:
		return true
	}
	return false
}
