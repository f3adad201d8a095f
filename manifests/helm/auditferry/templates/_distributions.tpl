{{/*
What is known of each distribution: the audit logs and the uid that owns them, the SELinux type without which a container does not
get to read them, and where DNS answers, which the NetworkPolicy must let through.
*/}}
{{- define "auditferry.distributions" -}}
"":
  paths: []
kubeadm:
  paths: [/var/log/kubernetes/audit/audit.log]
k3s:
  paths: [/var/lib/rancher/k3s/server/logs/audit.log]
rke2:
  paths: [/var/lib/rancher/rke2/server/logs/audit.log]
openshift:
  paths:
    - /var/log/kube-apiserver/audit.log
    - /var/log/openshift-apiserver/audit.log
    - /var/log/oauth-apiserver/audit.log
    - /var/log/oauth-server/audit.log
  seLinuxType: spc_t
  dns: {namespace: openshift-dns, port: 5353} # the port of its pods
talos:
  paths: [/var/log/audit/kube/kube-apiserver.log]
  owner: 65534
kubespray:
  paths: [/var/log/kubernetes/audit/kube-apiserver-audit.log]
  dns: {cidr: 169.254.25.10/32} # nodelocaldns_ip: the cache on each node that pods ask
{{- end }}

{{/* The facts that hold for this release: those of the distribution, and what the values say instead. */}}
{{- define "auditferry.facts" -}}
{{- $known := get (include "auditferry.distributions" . | fromYaml) .Values.distribution -}}
{{- $facts := merge $known (dict "owner" 0 "seLinuxType" "" "dns" (dict "namespace" "kube-system" "port" 53 "cidr" "")) -}}
{{- with .Values.auditLogPaths }}{{ $_ := set $facts "paths" . }}{{ end -}}
{{- if not (kindIs "invalid" .Values.auditLogOwner) }}{{ $_ := set $facts "owner" .Values.auditLogOwner }}{{ end -}}
{{- if not (kindIs "invalid" .Values.seLinuxType) }}{{ $_ := set $facts "seLinuxType" .Values.seLinuxType }}{{ end -}}
{{- if not $facts.paths -}}
{{- fail "which audit logs? Set distribution (kubeadm, k3s, rke2, openshift, talos or kubespray) or auditLogPaths" -}}
{{- end -}}
{{- if and (eq .Values.distribution "openshift") (ne (int $facts.owner) 0) -}}
{{- fail (printf "auditLogOwner=%d: on OpenShift the audit logs are root's, and the SCC of this chart allows no other user" (int $facts.owner)) -}}
{{- end -}}
{{- toYaml $facts -}}
{{- end }}

{{/*
The directories of the audit logs, each with the name of its volume. They are mounted, not the files: rotation makes new files, and
a mounted file stays the one that it was.
*/}}
{{- define "auditferry.directories" -}}
{{- $dirs := list -}}
{{- range .paths }}{{ $dirs = append $dirs (dir .) }}{{ end -}}
{{- $dirs = uniq $dirs -}}
{{- $taken := list "state" "config" "loki" -}}
{{- range $i, $dir := $dirs }}
{{- $name := "audit-log" -}}
{{- if gt (len $dirs) 1 }}{{ $name = regexReplaceAll "[^a-z0-9]+" (base $dir | lower) "-" | trunc 50 | trimAll "-" }}{{ end -}}
{{- if or (not $name) (has $name $taken) }}{{ $name = printf "audit-log-%d" $i }}{{ end -}}
{{- $taken = append $taken $name }}
- name: {{ $name }}
  path: {{ $dir | quote }}
{{- end -}}
{{- end }}
