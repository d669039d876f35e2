{{/* Flags for logs. */}}
{{- define "postern-lib.logArgs" -}}
- --log-level={{ default .Values.global.logLevel .Values.logLevel }}
- --log-format={{ .Values.global.logFormat }}
{{- end -}}

{{/*
Environment for traces, a list. The resource attributes tell which pod on which node a span is of; they refer to
variables before them.
*/}}
{{- define "postern-lib.traceEnv" -}}
{{- with .Values.global.otlp }}
{{- if .endpoint -}}
- name: KUBE_NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.node.name=$(KUBE_NODE_NAME),k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME)
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .endpoint | quote }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: {{ .protocol | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The port of a URL; what the scheme implies if it has none. Takes url and default. */}}
{{- define "postern-lib.urlPort" -}}
{{- $host := (urlParse .url).host -}}
{{- if regexMatch ":[0-9]+$" $host -}}
{{- regexFind "[0-9]+$" $host -}}
{{- else if hasPrefix "https:" .url -}}
443
{{- else if hasPrefix "http:" .url -}}
80
{{- else -}}
{{- .default -}}
{{- end -}}
{{- end -}}

{{/* Service and ServiceMonitor of a part. Its container's port is named metrics. */}}
{{- define "postern-lib.serviceMonitor" -}}
{{- if .Values.global.serviceMonitor.enabled }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "postern-lib.fullname" . }}
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "postern-lib.labels" . | nindent 4 }}
spec:
  clusterIP: None
  selector:
    {{- include "postern-lib.selectorLabels" . | nindent 4 }}
  ports:
    - name: metrics
      port: {{ include "postern-lib.metricsPort" . }}
      targetPort: metrics
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ include "postern-lib.fullname" . }}
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "postern-lib.labels" . | nindent 4 }}
    {{- with .Values.global.serviceMonitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      {{- include "postern-lib.selectorLabels" . | nindent 6 }}
  endpoints:
    - port: metrics
      interval: {{ .Values.global.serviceMonitor.interval }}
      relabelings:
        - sourceLabels: [__meta_kubernetes_pod_node_name]
          targetLabel: node
{{- end }}
{{- end -}}

{{/* The port of metrics and health: of metricsAddr (host:port) or metricsPort. */}}
{{- define "postern-lib.metricsPort" -}}
{{- if .Values.linux -}}
{{- regexFind "[0-9]+$" .Values.linux.metricsAddr -}}
{{- else -}}
{{- int .Values.metricsPort -}}
{{- end -}}
{{- end -}}
