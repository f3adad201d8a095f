#!/bin/sh
# dpkg calls it with "configure" and the version that was there before, if any; rpm with how many versions there are now.
set -e

case "$1" in
configure) previous="$2" ;;
1) previous= ;;
2) previous=some ;;
*) exit 0 ;; # dpkg takes back a removal or an upgrade that has failed
esac

systemd-sysusers auditferry.conf

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# What is not acknowledged is read again, so nothing is lost. What was stopped stays so.
	systemctl try-restart auditferry.service
fi

if [ -z "$previous" ]; then
	cat <<'EOF'
auditferry is installed and does not run yet: it has to be told where Loki is.
  1. set audit-log-path and loki-url in /etc/auditferry/config.yaml
  2. systemctl enable --now auditferry
  3. systemctl status auditferry
EOF
fi
