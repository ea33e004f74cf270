// Package powercut proves what a power cut may leave of the agent's state.
//
// Disk is a file system (FUSE, in memory) that writes down every write, truncation, sync and change of a folder, in the order in which
// the kernel asked for them, together with the facts that the workload noted in between: "this event was accepted", "this PUBREL was sent".
//
// Cursor walks such a journal. At any place in it, it builds what a disk could hold if the power went away there: of the writes that no
// fsync has covered any subset, each perhaps torn at 512 bytes; of the names that no fsync of their folder has covered any subset.
// What an fsync has covered is whole: these are the promises of POSIX and of a disk that obeys a flush, and no more than that.
//
// On ext4 the recorded file is the block device (Ext4): then the cut is below a real file system, whose blocks of 4 KiB are whole or not there.
//
// Check opens such a state with package queue and compares it with the facts that were noted before the cut.
// The workload runs in another process: a page of a mapped file that this process serves to itself could wait for itself for ever.
package powercut
