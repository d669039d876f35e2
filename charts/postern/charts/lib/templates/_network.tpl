{{/*
NetworkPolicy of a part. Takes context and egress, a list of rules beyond names and traces; dns says that those rules
need names.
*/}}
{{- define "postern-lib.networkPolicy" -}}
{{- $global := .context.Values.global -}}
{{- if $global.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "postern-lib.fullname" .context }}
  namespace: {{ .context.Release.Namespace }}
  labels:
    {{- include "postern-lib.labels" .context | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "postern-lib.selectorLabels" .context | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    - ports:
        - port: metrics
          protocol: TCP
      {{- with $global.networkPolicy.metricsFrom }}
      from:
        {{- toYaml . | nindent 8 }}
      {{- end }}
  {{- $egress := list }}
  {{- if or .egress $global.otlp.endpoint }}
  {{- $egress = append $egress (dict "ports" (list (dict "port" 53 "protocol" "UDP") (dict "port" 53 "protocol" "TCP"))) }}
  {{- end }}
  {{- with $global.otlp }}
  {{- if .endpoint }}
  {{- $port := include "postern-lib.urlPort" (dict "url" .endpoint "default" (ternary "4317" "4318" (eq .protocol "grpc"))) }}
  {{- $egress = append $egress (dict "ports" (list (dict "port" (int $port) "protocol" "TCP"))) }}
  {{- end }}
  {{- end }}
  {{- with concat $egress (default list .egress) }}
  egress:
    {{- toYaml . | nindent 4 }}
  {{- else }}
  egress: []
  {{- end }}
{{- end }}
{{- end -}}
