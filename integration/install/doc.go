// Package install tests the packages as installers use them: in a booted systemd container (CI), and on an emulated board that is
// powered off without warning (long form, make boot-test). Root file systems are made by debootstrap once and kept in the user's cache.
package install
