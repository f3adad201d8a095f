{{- define "auditferry.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "auditferry.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "auditferry.labels" -}}
{{ include "auditferry.selectorLabels" . }}
app.kubernetes.io/component: agent
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "auditferry.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "auditferry.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end }}

{{- define "auditferry.secretName" -}}
{{- .Values.loki.existingSecret | default (printf "%s-loki" (include "auditferry.fullname" .)) -}}
{{- end }}

{{- define "auditferry.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* config.yaml, which the agent reads. */}}
{{- define "auditferry.config" -}}
{{- include "auditferry.check" . -}}
{{- $facts := include "auditferry.facts" . | fromYaml -}}
{{- $config := dict "audit-log-path" (ternary (first $facts.paths) $facts.paths (eq (len $facts.paths) 1)) "loki-url" .Values.loki.url "loki-http-config" "/etc/auditferry-loki/http.yaml" -}}
{{- with .Values.loki.tenantId }}{{ $_ := set $config "loki-tenant-id" . }}{{ end -}}
{{- with .Values.cluster }}{{ $_ := set $config "cluster" . }}{{ end -}}
{{- with .Values.labels }}{{ $_ := set $config "label" . }}{{ end -}}
{{- toYaml (merge (deepCopy .Values.config) $config) -}}
{{- end }}

{{- define "auditferry.httpConfig" -}}
{{- toYaml .Values.loki.httpConfig -}}
{{- end }}

{{/*
The security context of a container. Audit logs are readable by their owner alone, so the agent runs as that, without a capability:
uid 0 is root over nothing else then. DAC_READ_SEARCH would do for any user, but with it open_by_handle_at reads every file of the
node's disk.
*/}}
{{- define "auditferry.securityContext" -}}
runAsUser: {{ .uid }}
runAsGroup: {{ .uid }}
runAsNonRoot: {{ ne .uid 0 }}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  {{- with .add }}
  add: [{{ . }}]
  {{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}
