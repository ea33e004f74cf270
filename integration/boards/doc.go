// Package boards boots emulated ARM boards with stock Debian kernels and runs the shipped agent binary in them.
//
// The kernel's own drivers make /dev/i2c-N and /dev/gpiochipN; QEMU has the chips behind them, and the test changes
// the temperature and pulls the lines from outside, over QMP and qtest. Nothing is installed: the packages of QEMU and of
// the kernels are downloaded once and unpacked into a cache (see Prepare). The guest reaches one address, the broker
// on the host's loopback, through QEMU's user-mode network with everything else shut off.
package boards
