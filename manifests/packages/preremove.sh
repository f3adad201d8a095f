#!/bin/sh
# dpkg calls it with "remove" or "upgrade", rpm with how many versions will be left.
set -e

case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl --no-reload disable --now auditferry.service
	else
		systemctl --no-reload disable auditferry.service || true # an image that is being made
	fi
	;;
esac
