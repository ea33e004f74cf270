#!/bin/sh
# After unpacking. deb: $1 is configure; rpm: 1 installs, 2 upgrades; apk: a version.
set -e

case "$1" in
abort-*) exit 0 ;;
esac

if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers fieldagent.conf
	systemd-tmpfiles --create fieldagent.conf || true
elif command -v addgroup >/dev/null && command -v adduser >/dev/null; then # Alpine
	for g in gpio i2c spi fieldagent; do
		addgroup -S "$g" 2>/dev/null || true
	done
	adduser -S -D -H -h /var/lib/fieldagent -s /sbin/nologin -G fieldagent fieldagent 2>/dev/null || true
	for g in gpio i2c spi; do
		addgroup fieldagent "$g" 2>/dev/null || true
	done
	mkdir -p /etc/fieldagent/credentials
	chown root:fieldagent /etc/fieldagent/credentials
	chmod 750 /etc/fieldagent/credentials
fi

# Not on every system: containers have neither modules nor udev.
modprobe i2c-dev 2>/dev/null || true
if udevadm control --reload 2>/dev/null; then
	udevadm trigger --subsystem-match=gpio --subsystem-match=i2c-dev --subsystem-match=spidev 2>/dev/null || true
fi

if command -v systemctl >/dev/null; then
	systemctl --system daemon-reload >/dev/null 2>&1 || true
	# An administrator's "disable" outlives upgrades: only a first installation enables.
	if { [ "$1" = configure ] && [ -z "$2" ]; } || [ "$1" = 1 ]; then
		systemctl enable fieldagent.service >/dev/null 2>&1 || true
	fi
	if [ -d /run/systemd/system ] && systemctl is-enabled --quiet fieldagent.service; then
		systemctl restart fieldagent.service || echo "fieldagent: the service does not start; sudo fieldagent doctor says why" >&2
	fi
fi
exit 0
