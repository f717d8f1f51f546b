{{- /* Names, labels and values that several templates share. */ -}}

{{- define "entra.labels" -}}
app.kubernetes.io/part-of: entra-sidecar
{{- end }}

{{- /* The pods that this release is for. */ -}}
{{- define "entra.selector" -}}
entra-sidecar/injected: "true"
{{- range $name, $value := .Values.selector }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "entra.marker" -}}
{{ .Values.inbound.policy.permit_marker | default "x-entra-permit" }}
{{- end }}

{{- /* The wasm part of TrafficExtension and the body of WasmPlugin are the same words. */ -}}
{{- define "entra.plugin" -}}
# Change: image and digest. The digest stands twice, since the resource wants it bare as well.
url: oci://{{ .Values.filter.image }}@{{ .Values.filter.digest }}
sha256: {{ trimPrefix "sha256:" .Values.filter.digest | quote }}
imagePullPolicy: IfNotPresent
{{- with .Values.filter.pullSecret }}
imagePullSecret: {{ . }}
{{- end }}
pluginName: entra-inbound
# Never FAIL_OPEN: that would let everybody in after one failure of the VM. With FAIL_CLOSE one
# failure would be an outage until the pod is restarted.
failStrategy: FAIL_RELOAD
vmConfig:
  # Not the outbound filter's VM, so that neither can take the other down.
  env:
  - {name: ENTRA_DIRECTION, valueFrom: INLINE, value: inbound}
# Change: this is the policy. Every key stands in docs/configuration.md. The first rule whose
# `match` fits decides; a request that none fits is denied.
pluginConfig:
  direction: inbound
  broker: {cluster: token_broker}
  {{- $policy := .Values.inbound.policy }}
  {{- /* In the order in which one reads them, not in the alphabet's. */ -}}
  {{- range list "cloud" "tenants" "audiences" "mode" "forward_token" "clock_skew_seconds"
      "path_case" "identity_headers" "app_service_headers" "permit_marker" }}
  {{- if hasKey $policy . }}
  {{ . }}: {{ get $policy . | toJson }}
  {{- end }}
  {{- end }}
  # In a mesh the calling workload has a name, too: the access log shows it beside the token's.
  log_caller_workload: {{ ternary (get $policy "log_caller_workload") true
      (hasKey $policy "log_caller_workload") }}
  rules:
  {{- range $policy.rules }}
  {{- $rule := . }}
  - name: {{ .name | toJson }}
    {{- range list "match" "mode" "forward_token" }}
    {{- if hasKey $rule . }}
    {{ . }}: {{ get $rule . | toJson }}
    {{- end }}
    {{- end }}
    {{- if kindIs "string" .allow }}
    allow: {{ .allow }}
    {{- else }}
    allow:
    {{- range .allow }}
    - {{ toJson . }}
    {{- end }}
    {{- end }}
  {{- end }}
{{- end }}

{{- /* A match on one network filter of the inbound listener, wherever it stands. */ -}}
{{- define "entra.hcm" -}}
listener:
  filterChain:
    filter: {name: envoy.filters.network.http_connection_manager}
{{- end }}
