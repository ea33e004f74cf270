package sensors

import (
	"bytes"
	"fmt"
	"slices"

	"periph.io/x/conn/v3/i2c"
)

// Place is where a chip is connected.
type Place struct {
	Bus     string // i2c-1
	Address uint16 // 0 for a bus without addresses
}

// Placed is implemented by the options of chips on a bus. Two sensors at one place are a fault of the configuration.
type Placed interface{ Place() Place }

// PlaceOf returns where a sensor is connected, and false when that is no bus.
func PlaceOf(c Config) (Place, bool) {
	p, ok := c.Options.(Placed)
	if !ok {
		return Place{}, false
	}
	return p.Place(), true
}

// Clashes calls report for every sensor that is not alone at its place, with the index of another one there.
func Clashes(cfg []Config, report func(i, other int, at Place)) {
	there := map[Place][]int{}
	for i, c := range cfg {
		if p, ok := PlaceOf(c); ok {
			there[p] = append(there[p], i)
		}
	}
	for i, c := range cfg {
		p, ok := PlaceOf(c)
		for _, j := range there[p] {
			if ok && i != j {
				report(i, j, p)
				break
			}
		}
	}
}

// ID is how a chip says what it is: after Write, it answers Value. It is read before a chip is opened, and by a scan; reading it changes nothing in any known chip.
type ID struct {
	Write []byte
	Value []byte
	Mask  []byte // bits of Value that count; nil: all
}

func (id ID) matches(answer []byte) bool {
	if len(id.Mask) == 0 {
		return bytes.Equal(answer, id.Value)
	}
	for i := range id.Value {
		if answer[i]&id.Mask[i] != id.Value[i]&id.Mask[i] {
			return false
		}
	}
	return true
}

// Identify says whether the chip at an address is this driver's. A driver without ids knows nothing: false, nil.
func (d Driver) Identify(bus i2c.Bus, addr uint16) (bool, error) {
	for _, id := range d.IDs {
		answer := make([]byte, len(id.Value))
		if err := bus.Tx(addr, id.Write, answer); err != nil {
			return false, err
		}
		if !id.matches(answer) {
			return false, nil
		}
	}
	return len(d.IDs) > 0, nil
}

func (d Driver) livesAt(addr uint16) bool { return slices.Contains(d.Addresses, addr) }

// rightChip reads the ids of the chip at a sensor's place, and says which one is there when it is another.
func rightChip(d Driver, opts any, b Board, all []Driver) error {
	p, ok := opts.(Placed)
	if !ok || len(d.IDs) == 0 || p.Place().Address == 0 {
		return nil
	}
	at := p.Place()
	bus, err := b.I2C(at.Bus)
	if err != nil {
		return err
	}
	for _, id := range d.IDs {
		answer := make([]byte, len(id.Value))
		if err := bus.Tx(at.Address, id.Write, answer); err != nil {
			return err
		}
		if id.matches(answer) {
			continue
		}
		found := fmt.Sprintf("%#x on %s answers with id %#x", at.Address, at.Bus, answer)
		for _, other := range all {
			if other.Name != d.Name && other.livesAt(at.Address) && other.answered(id.Write, answer) {
				return fmt.Errorf("%s: that is a %s; write driver: %s, or another address", found, other.Name, other.Name)
			}
		}
		return fmt.Errorf("%s, a %s has %#x: another chip is there, or a bad wire", found, d.Name, id.Value)
	}
	return nil
}

// answered says whether d's chip would have answered like this. No further question is put to a chip that is not known.
func (d Driver) answered(write, answer []byte) bool {
	return slices.ContainsFunc(d.IDs, func(id ID) bool {
		return bytes.Equal(id.Write, write) && len(id.Value) == len(answer) && id.matches(answer)
	})
}
