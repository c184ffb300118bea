{{/* The server's command line. */}}
{{- define "e3rl.args" -}}
{{- $v := .Values -}}
- serve
{{- with $v.model.name }}
- {{ . | quote }}
{{- end }}
- --host=0.0.0.0
- --port=8000
- --shutdown-timeout={{ $v.drain.seconds }}
{{- with $v.model.revision }}
- {{ printf "--revision=%s" . | quote }}
{{- end }}
{{- with $v.model.servedName }}
- {{ printf "--served-model-name=%s" . | quote }}
{{- end }}
{{- with $v.healing.mode }}
- --healing={{ . }}
{{- end }}
{{- with $v.healing.preset }}
- --healing-preset={{ . }}
{{- end }}
{{- if $v.healing.profile }}
- --profile=/etc/e3rl/healing_profile.json
{{- end }}
{{- if gt (int $v.gpu.count) 1 }}
- --tensor-parallel-size={{ $v.gpu.count }}
{{- end }}
{{- with $v.lora }}
- --enable-lora
- --lora-modules
{{- range . }}
- {{ printf "%s=%s" .name .path | quote }}
{{- end }}
{{- end }}
{{- with $v.args }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Its environment: where it may write, and what is secret. The image sets the rest. */}}
{{- define "e3rl.env" -}}
{{- $v := .Values -}}
{{- if $v.apiKey.enabled }}
- name: VLLM_API_KEY
  valueFrom: {secretKeyRef: {name: {{ include "e3rl.apiKeySecret" . }}, key: api-key}}
{{- end }}
{{- with $v.model.hubTokenSecret }}
- name: HF_TOKEN
  valueFrom: {secretKeyRef: {name: {{ . }}, key: token}}
{{- end }}
{{- with $v.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "e3rl.resources" -}}
{{- $gpus := ternary (dict .Values.gpu.resource .Values.gpu.count) dict (gt (int .Values.gpu.count) 0) -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if $gpus -}}
{{- $_ := set $resources "limits" (merge $gpus (default dict $resources.limits)) -}}
{{- end -}}
{{ toYaml $resources }}
{{- end }}
