#!/bin/sh
# Before files go. deb: remove or upgrade; rpm: 0 removes, 1 upgrades. An upgrade lets the old version run until the new one is in place.
set -e

if [ "$1" = remove ] || [ "$1" = deconfigure ] || [ "$1" = 0 ]; then
	if [ -d /run/systemd/system ]; then
		systemctl stop fieldagent.service || true
	fi
	# rpm knows no purge. With deb the link stays until then, so that coming back finds the service as it was: enabled or disabled.
	if [ "$1" = 0 ]; then
		systemctl disable fieldagent.service >/dev/null 2>&1 || true
	fi
fi
exit 0
