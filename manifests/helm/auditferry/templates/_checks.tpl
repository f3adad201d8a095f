{{/*
What the agent would refuse at its start, and a pattern cannot tell: values that fit each by itself but not together, or that take
more than one sentence. The agent's own words are in agent/audit (labels.go, field.go) and agent (config.go, target.go).
*/}}
{{- define "auditferry.check" -}}
{{- if and .Values.loki.existingSecret .Values.loki.httpConfig -}}
{{- fail "loki.httpConfig is not used beside loki.existingSecret, whose http.yaml counts: set one of them" -}}
{{- end -}}
{{- include "auditferry.checkPerURL" . -}}
{{- include "auditferry.checkLabels" . -}}
{{- with get .Values.config "max-streams" -}}
{{- $paths := len (include "auditferry.facts" $ | fromYaml).paths -}}
{{- if lt (int .) (mul 64 $paths | int) -}}
{{- fail (printf "config.max-streams=%d is too small: it takes at least %d, 64 for each audit log" (int .) (mul 64 $paths)) -}}
{{- end -}}
{{- end -}}
{{- if hasKey .Values.config "start-at" -}}
{{- $start := get .Values.config "start-at" -}}
{{- if and (not (has $start (list "beginning" "end"))) (toDate "2006-01-02T15:04:05Z07:00" $start).IsZero -}}
{{- fail (printf "config.start-at=%s: want beginning, end or a time such as 2026-11-23T08:00:00Z" $start) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* What is given once for all URLs, or once for each. One text may hold several, with commas between them. */}}
{{- define "auditferry.checkPerURL" -}}
{{- $urls := 0 -}}
{{- range kindIs "slice" .Values.loki.url | ternary .Values.loki.url (list .Values.loki.url) -}}
{{- $urls = add $urls (regexFindAll "(^|,)https?://" . -1 | len) | int -}}
{{- end -}}
{{- range $name, $given := dict "loki.tenantId" .Values.loki.tenantId "config.loki-http-config" (get .Values.config "loki-http-config") -}}
{{- if $given -}}
{{- $list := kindIs "slice" $given | ternary $given (list $given) -}}
{{- if and (eq (len $list) 1) (gt $urls 1) }}{{ $list = splitList "," (first $list) }}{{ end -}}
{{- if not (has (len $list) (list 1 $urls)) -}}
{{- fail (printf "%s is given %d times, and loki.url %d: give it once, for all, or once for each loki.url, in their order" $name (len $list) $urls) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "auditferry.checkLabels" -}}
{{- $config := .Values.config -}}
{{- $fields := list "verb" "user" "resource" -}}
{{- if hasKey $config "label-fields" -}}
{{- $fields = include "auditferry.fieldNames" (dict "of" "config.label-fields" "words" (get $config "label-fields")) | fromYamlArray -}}
{{- end -}}
{{- $metadata := include "auditferry.fieldNames" (dict "of" "config.metadata-fields" "words" (get $config "metadata-fields" | default list)) | fromYamlArray -}}
{{- $ours := list "job" "service_name" "node" "cluster" "filename" "event" "verb" "user" "resource" -}}
{{- $always := list "audit_id" "stage" "audit_level" "username" "impersonated_user" "namespace" "name" "code" "decision" "source_ip" "user_agent" "requested_verb" "requested_resource" "groups" "detected_level" -}}
{{- range $name, $value := .Values.labels -}}
{{- if hasPrefix "__" $name -}}
{{- fail (printf "labels.%s: names that begin with __ are Loki's own" $name) -}}
{{- else if or (has $name $ours) (has $name $fields) -}}
{{- fail (printf "labels.%s: auditferry sets this label itself" $name) -}}
{{- else if or (has $name $always) (has $name $metadata) (hasPrefix "event_" $name) -}}
{{- fail (printf "labels.%s: auditferry sets structured metadata of this name" $name) -}}
{{- else if gt (len $value) 2048 -}}
{{- fail (printf "labels.%s: the value has %d bytes, Loki takes at most 2048" $name (len $value)) -}}
{{- end -}}
{{- end -}}
{{- if gt (len .Values.cluster) 2048 -}}
{{- fail (printf "cluster: the value has %d bytes, Loki takes at most 2048" (len .Values.cluster)) -}}
{{- end -}}
{{- if eq (get $config "user-label") "none" }}{{ $fields = without $fields "user" }}{{ end -}}
{{- $several := gt (len (include "auditferry.facts" . | fromYaml).paths) 1 -}}
{{- $count := add 3 (ternary 1 0 (ne .Values.cluster "")) (ternary 1 0 $several) (len .Values.labels) (max (len $fields) 1) -}}
{{- if gt (int $count) 15 -}}
{{- fail (printf "labels: with these, config.label-fields and its own, streams would have %d labels, and Loki takes at most 15" $count) -}}
{{- end -}}
{{- end }}

{{/* The names that fields of an event have as labels or metadata, from their words in a list or with commas between them. */}}
{{- define "auditferry.fieldNames" -}}
{{- $words := .words -}}
{{- if kindIs "string" $words }}{{ $words = splitList "," $words }}{{ end -}}
{{- if eq (join "," $words) "" }}{{ $words = list }}{{ end -}}
{{- $fields := list "verb" "user" "resource" "namespace" "name" "code" "level" "stage" "decision" "impersonated_user" "groups" "source_ip" "user_agent" "audit_id" -}}
{{- $names := list -}}
{{- range $word := $words -}}
{{- if and (has $word (list "name" "source_ip" "user_agent" "audit_id")) (eq $.of "config.label-fields") -}}
{{- fail (printf "%s: %s cannot be a label: it has too many values, and each would make a stream of its own" $.of $word) -}}
{{- else if not (or (has $word $fields) (regexMatch "^annotation:.{1,317}$" $word)) -}}
{{- fail (printf "%s: %q is not a field: there are %s and annotation:KEY" $.of $word (join ", " $fields)) -}}
{{- end -}}
{{- $name := $word -}}
{{- if eq $word "level" }}{{ $name = "audit_level" }}{{ end -}}
{{- if hasPrefix "annotation:" $word }}{{ $name = printf "annotation_%s" (regexReplaceAll "[^a-zA-Z0-9]" (trimPrefix "annotation:" $word) "_") }}{{ end -}}
{{- if has $name $names }}{{ fail (printf "%s: %s is given twice, or another would have its name, %s" $.of $word $name) }}{{ end -}}
{{- $names = append $names $name -}}
{{- end -}}
{{- toYaml $names -}}
{{- end }}
