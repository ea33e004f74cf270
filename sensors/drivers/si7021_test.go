package drivers

import "testing"

// The checksums are the examples of the HTU21D data sheet ("CRC-8 checksum"): 0x79 of 0xdc, 0x7c of 0x683a, 0x6b of 0x4e85.
func TestSi7021(t *testing.T) {
	io := at(0x40)
	humidity := io([]byte{0xf5})
	celsius := io([]byte{0xf3})
	want(t, virtual(t, si7021, nil, celsius, io(nil, 0x4e, 0x85, 0x6b), humidity, io(nil, 0x68, 0x3a, 0x7c)),
		map[string]float64{"temperature_celsius": -46.85 + 175.72*0x4e84/65536, "relative_humidity_percent": -6 + 125.0*0x6838/65536})
	// −20 °C and 0 %: 0x271c and 0x0002; their checksums are from the polynomial x⁸+x⁵+x⁴+1.
	got := virtual(t, si7021, nil, celsius, io(nil, 0x27, 0x1c, 0x4c), humidity, io(nil, 0x00, 0x02, 0x62))
	near(t, got, "temperature_celsius", -20.01, -19.99)
	near(t, got, "relative_humidity_percent", 0, 0)
	refused(t, si7021, nil, "checksum", celsius, io(nil, 0x4e, 0x85, 0x6a))
	refused(t, si7021, nil, "checksum", celsius, io(nil, 0xff, 0xff, 0xff))
	refused(t, si7021, nil, "checksum", celsius, io(nil, 0x4e, 0x85, 0x6b), humidity, io(nil, 0x68, 0x3b, 0x7c))
	refused(t, si7021, nil, "outside -40 to 125", celsius, io(nil, 0x00, 0x00, 0x00), humidity, io(nil, 0x68, 0x3a, 0x7c))
}
