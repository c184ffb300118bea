{{/* What contradicts what: values that are right each for itself, and cannot work together. */}}
{{- define "e3rl.checks" -}}
{{- $v := .Values -}}
{{- $several := or (gt (int $v.replicas) 1) (and (ne $v.autoscaling.type "none") (gt (int $v.autoscaling.maxReplicas) 1)) -}}
{{- if and (eq $v.healing.mode "off") (or $v.healing.preset $v.healing.profile) -}}
{{- fail "healing.preset and healing.profile have no effect with healing.mode off: remove one of the two" -}}
{{- end -}}
{{- if and $v.healing.profile (hasKey ($v.healing.profile | fromJson) "Error") -}}
{{- fail "healing.profile is not a JSON object: pass the file with --set-file healing.profile=healing_profile.json" -}}
{{- end -}}
{{- if and $v.apiKey.existingSecret (not $v.apiKey.enabled) -}}
{{- fail "apiKey.existingSecret has no effect: set apiKey.enabled=true" -}}
{{- end -}}
{{- if and $v.model.revision (not $v.model.name) -}}
{{- fail "model.revision needs model.name: the embedded model has one revision" -}}
{{- end -}}
{{- range $v.args -}}
{{- $flag := first (splitList "=" .) -}}
{{- if has $flag (list "--host" "--port" "--api-key" "--shutdown-timeout" "--healing" "--healing-preset" "--profile" "--revision" "--served-model-name") -}}
{{- fail (printf "args: %s is set by the chart: use its own value (apiKey, drain.seconds, healing, model)" $flag) -}}
{{- end -}}
{{- end -}}
{{- if and $v.cache.existingClaim $v.cache.persistent -}}
{{- fail "cache.existingClaim and cache.persistent exclude each other: a claim of yours, or one that is made" -}}
{{- end -}}
{{- if and $several $v.cache.existingClaim (ne $v.cache.accessMode "ReadWriteMany") -}}
{{- fail "cache.existingClaim with several replicas needs cache.accessMode=ReadWriteMany: they share one claim" -}}
{{- end -}}
{{- if and (ne $v.autoscaling.type "none") (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and (ne $v.autoscaling.type "none") (eq $v.monitoring.monitor "none") -}}
{{- fail "autoscaling.type needs monitoring.monitor=ServiceMonitor or PodMonitor: it scales by what they scrape" -}}
{{- end -}}
{{- if and $v.monitoring.rules (eq $v.monitoring.monitor "none") -}}
{{- fail "monitoring.rules needs monitoring.monitor=ServiceMonitor or PodMonitor: the rules select the job they scrape as" -}}
{{- end -}}
{{- if and $v.monitoring.disabledAlerts (not $v.monitoring.rules) -}}
{{- fail "monitoring.disabledAlerts has no effect: set monitoring.rules=true" -}}
{{- end -}}
{{- range $v.monitoring.disabledAlerts -}}
{{- if not (contains (printf "alert: %s\n" .) ($.Files.Get "monitoring/alerts.yaml")) -}}
{{- fail (printf "monitoring.disabledAlerts: %s is no alert of deploy/monitoring/alerts.yaml" .) -}}
{{- end -}}
{{- end -}}
{{- if and (or $v.ingress.enabled $v.httpRoute.enabled) $v.networkPolicy.enabled (not $v.networkPolicy.from) -}}
{{- fail "networkPolicy.from must name the pods of the ingress or gateway, which else are kept out" -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.host) -}}
{{- fail "ingress.host is missing" -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs must name a gateway" -}}
{{- end -}}
{{- if and $v.inferencePool.enabled (not $v.inferencePool.endpointPicker) -}}
{{- fail "inferencePool.endpointPicker must name the Service of an endpoint picker" -}}
{{- end -}}
{{- end }}
