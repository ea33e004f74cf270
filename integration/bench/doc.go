// Package bench measures what the product is to hold in numbers, each as a ratio to a named baseline in the same run on the same machine.
//
// `make bench` prints a line for each and a table at the end: measured, floor, and what limits it. Nothing here passes or fails by time.
// Bytes are counted at a block device of its own: an ext4 file system on a loop device, which needs root.
package bench
