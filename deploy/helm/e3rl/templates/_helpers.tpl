{{- define "e3rl.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* What tells this release's server pods from all others; immutable in what makes them. */}}
{{- define "e3rl.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "e3rl.labels" -}}
{{ include "e3rl.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "e3rl.image" -}}
{{- $kind := ternary "cuda" "cpu" (gt (int .Values.gpu.count) 0) -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default (printf "%s-%s" .Chart.AppVersion $kind) }}{{ end }}
{{- end }}

{{- define "e3rl.apiKeySecret" -}}
{{ .Values.apiKey.existingSecret | default (printf "%s-api-key" (include "e3rl.fullname" .)) }}
{{- end }}

{{/* A claim that one node mounts at a time is each replica's own: a StatefulSet makes them. */}}
{{- define "e3rl.kind" -}}
{{- if and .Values.cache.persistent (ne .Values.cache.accessMode "ReadWriteMany") }}StatefulSet{{ else }}Deployment{{ end }}
{{- end }}

{{/* The claim that all replicas share. */}}
{{- define "e3rl.claim" -}}
{{ .Values.cache.existingClaim | default (printf "%s-cache" (include "e3rl.fullname" .)) }}
{{- end }}

{{- define "e3rl.claimSpec" -}}
accessModes: [{{ .Values.cache.accessMode }}]
{{- with .Values.cache.storageClass }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests: {storage: {{ .Values.cache.size }}}
{{- end }}

{{/* What the restricted pod security standard asks of a pod, and of a container. */}}
{{- define "e3rl.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "e3rl.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The series of this release: labels that the monitor sets. */}}
{{- define "e3rl.series" -}}
{namespace="{{ .Release.Namespace }}", release="{{ .Release.Name }}"}
{{- end }}

{{/* Seconds from a pod's end being asked for to its being killed: preStop, drain, and the engine's own end. */}}
{{- define "e3rl.gracePeriod" -}}
{{ add .Values.drain.preStopSeconds .Values.drain.seconds 15 }}
{{- end }}
