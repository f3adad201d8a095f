# `make image` makes of this, by hack/image, one image of each commit, the same wherever it is built; docker build stamps the time into
# it. The context, .cache/image/ARCH, holds the static binary and, under var, an empty directory for the state. CA roots are in the binary.
FROM scratch
COPY auditferry /auditferry
# For any user, like /tmp: root without its capabilities may write to no directory of another user.
COPY var /var
# nobody: enough where the audit logs belong to it (Talos). Where they belong to root, run as uid 0 with all
# capabilities dropped, which reads them as their owner.
USER 65534:65534
ENV AUDITFERRY_POSITIONS_FILE=/var/lib/auditferry/positions.json \
    AUDITFERRY_LISTEN_ADDRESS=:9611
VOLUME /var/lib/auditferry
EXPOSE 9611
ENTRYPOINT ["/auditferry"]
