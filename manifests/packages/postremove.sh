#!/bin/sh
# dpkg calls it with "remove", "purge" or "upgrade", rpm with how many versions are left. The user stays, as its files may.
set -e

case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload
		systemctl reset-failed auditferry.service 2>/dev/null || true # it is not loaded any more
	fi
	;;
purge)
	# Positions, dead letters, and what Loki was shown.
	rm -rf /var/lib/auditferry /etc/auditferry
	;;
esac
