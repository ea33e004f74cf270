package boards

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// offset of "1e780000.gpio:9".
func offset(line string) int {
	_, n, _ := strings.Cut(line, ":")
	i, _ := strconv.Atoi(n)
	return i
}

// aspeedLines: QEMU's model has a property for each line: gpioB1 is line 9.
type aspeedLines struct{}

func aspeedName(line string) string {
	n := offset(line)
	return fmt.Sprintf("gpio%c%d", 'A'+n/8, n%8)
}

func (aspeedLines) Drive(m *Machine, line string, high bool) error {
	return m.Set("/machine/soc/gpio", aspeedName(line), high)
}

func (aspeedLines) Read(m *Machine, line string) (bool, error) {
	var v bool
	err := m.QMP("qom-get", map[string]any{"path": "/machine/soc/gpio", "property": aspeedName(line)}, &v)
	return v, err
}

// Pending reads the interrupt status of lines A to D (AST2600 data sheet, GPIO018).
func (aspeedLines) Pending(m *Machine, line string) (bool, error) {
	return m.bit(0x1e780018, offset(line))
}

// imxLines: inputs are the model's interrupt inputs, outputs are read from the data register DR (i.MX 8M Plus reference manual, GPIO chapter).
type imxLines struct{}

func (imxLines) Drive(m *Machine, line string, high bool) error {
	level := 0
	if high {
		level = 1
	}
	_, err := m.QTest("set_irq_in /machine/soc/gpio1 unnamed-gpio-in %d %d", offset(line), level)
	return err
}

func (imxLines) Read(m *Machine, line string) (bool, error) {
	return m.bit(0x30200000, offset(line))
}

// Pending reads the interrupt status register ISR.
func (imxLines) Pending(m *Machine, line string) (bool, error) {
	return m.bit(0x30200018, offset(line))
}

// raspiLines: outputs are read from the level register GPLEV0 (BCM2835 ARM Peripherals, chapter 6).
type raspiLines struct{}

func (raspiLines) Drive(*Machine, string, bool) error {
	return errors.New("this model's inputs cannot be driven")
}

func (raspiLines) Read(m *Machine, line string) (bool, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(line, "GPIO"))
	if err != nil {
		return false, err
	}
	return m.bit(0x3f200034, n)
}

func (raspiLines) Pending(*Machine, string) (bool, error) { return false, nil }

// bit reads one bit of a register.
func (m *Machine) bit(address, n int) (bool, error) {
	v, err := m.QTest("readl %#x", address)
	if err != nil {
		return false, err
	}
	x, err := strconv.ParseUint(strings.TrimPrefix(v, "0x"), 16, 64)
	return x>>n&1 == 1, err
}
