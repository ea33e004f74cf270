#!/bin/sh
# After files went. Removing keeps the state and the configuration; purging (deb only) removes both.
set -e

if [ "$1" = purge ]; then
	rm -rf /var/lib/fieldagent /etc/fieldagent/credentials
	rmdir --ignore-fail-on-non-empty /etc/fieldagent/conf.d /etc/fieldagent 2>/dev/null || true
	rm -rf /etc/systemd/system/fieldagent.service.d
	rm -f /etc/systemd/system/multi-user.target.wants/fieldagent.service
	# The user stays: files elsewhere may be its, and a number must not be given to another.
fi
if [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload >/dev/null 2>&1 || true
fi
exit 0
