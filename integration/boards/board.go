package boards

// Board is an emulated machine and what its kernel needs.
type Board struct {
	Name    string
	Machine string
	QEMU    string // binary
	GOARCH  string
	GOARM   string
	Debian  string // armhf or arm64
	DTB     string
	Console string
	Serial  int      // which serial port the console is
	Memory  string   // "" as the machine has it
	Modules []string // with their dependencies loaded first
	Net     string   // QEMU arguments of the network, %s is the forwarding
	I2C     string   // QEMU's name of the bus
	Bus     string   // the guest's name of it
	SD      string   // QEMU's -drive arguments
	Disk    string   // the guest's name of the disk
	In, Out string   // lines as the configuration names them
	In2     string   // for the meter
	In3     string   // for debounce by the kernel; "" where the chip says that it does it, and the emulation does not
	Deaf    bool     // the guest does not hear its console
	Lines   LineDriver
}

// Inputs says whether the emulation's inputs can be driven.
func (b Board) Inputs() bool { return b.In != "" }

// LineDriver moves an input and reads an output from outside.
type LineDriver interface {
	Drive(m *Machine, line string, high bool) error
	Read(m *Machine, line string) (bool, error)
	// Pending says whether an edge of the line waits for the guest's interrupt handler.
	Pending(m *Machine, line string) (bool, error)
}

// All are the boards, the 32-bit one first. The last one has no lines that can be driven.
var All = []Board{ast2600, imx8mp, raspi3b}

var ast2600 = Board{
	Name: "ast2600", Machine: "ast2600-evb", QEMU: "qemu-system-arm", GOARCH: "arm", GOARM: "6", Debian: "armhf",
	DTB: "aspeed-ast2600-evb.dtb", Console: "ttyS4,115200n8", Serial: 0,
	Modules: []string{"i2c-dev", "i2c-aspeed", "gpio-aspeed", "mdio-aspeed", "realtek", "ftgmac100", "sdhci-of-aspeed", "mmc_block", "crc32c_generic", "libcrc32c", "ext4"},
	Net:     "user,model=ftgmac100,restrict=on%s",
	I2C:     "aspeed.i2c.bus.7", Bus: "i2c-7",
	SD: "if=sd,index=2,format=raw,file=%s", Disk: "/dev/mmcblk0",
	In: "1e780000.gpio:9", Out: "1e780000.gpio:8", In2: "1e780000.gpio:10",
	Lines: aspeedLines{},
}

var imx8mp = Board{
	Name: "imx8mp", Machine: "imx8mp-evk", QEMU: "qemu-system-aarch64", GOARCH: "arm64", Debian: "arm64",
	DTB: "freescale/imx8mp-evk.dtb", Console: "ttymxc1,115200", Serial: 1, Memory: "1G",
	Modules: []string{"i2c-dev", "i2c-imx", "nvmem-imx-ocotp", "realtek", "fec", "sdhci-esdhc-imx", "mmc_block", "crc32c_generic", "libcrc32c", "ext4"},
	Net:     "user,model=imx.enet,restrict=on%s",
	I2C:     "i2c-bus.2", Bus: "i2c-2",
	SD: "if=sd,bus=2,unit=0,format=raw,file=%s", Disk: "/dev/mmcblk2",
	In: "30200000.gpio:5", Out: "30200000.gpio:6", In2: "30200000.gpio:7", In3: "30200000.gpio:8",
	Lines: imxLines{},
}

// raspi3b: QEMU's model has no inputs that can be driven, no edges, and its console only prints; the network is a USB adapter.
var raspi3b = Board{
	Name: "raspi3b", Machine: "raspi3b", QEMU: "qemu-system-aarch64", GOARCH: "arm64", Debian: "arm64",
	DTB: "broadcom/bcm2837-rpi-3-b.dtb", Console: "ttyAMA0,115200", Serial: 0,
	Modules: []string{"i2c-dev", "i2c-bcm2835", "phy-generic", "dwc2", "cdc_ether", "rndis_host", "sdhci-iproc", "bcm2835", "mmc_block", "crc32c_generic", "libcrc32c", "ext4"},
	Net:     "usb",
	I2C:     "i2c-bus.1", Bus: "i2c-1",
	SD: "if=sd,format=raw,file=%s", Disk: "/dev/mmcblk0",
	Out:   "GPIO27",
	Deaf:  true,
	Lines: raspiLines{},
}
