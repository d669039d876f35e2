{{/*
Parameters of the class that "helm test" mounts, as YAML; empty if there is nothing to mount: no parameters are given,
and no provider-file serves the chart's own files.
*/}}
{{- define "postern.testParameters" -}}
{{- $file := index .Subcharts "provider-file" -}}
{{- if .Values.tests.parameters -}}
{{- toYaml .Values.tests.parameters -}}
{{- else if and (eq .Values.tests.provider "file") $file -}}
{{- if not (or $file.Values.root.hostPath $file.Values.root.volume) -}}
objects: |
  - objectName: helm-test
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "postern.testMetadata" -}}
name: {{ .Release.Name }}-test
namespace: {{ .Release.Namespace }}
labels:
  app.kubernetes.io/name: postern-test
  app.kubernetes.io/instance: {{ .Release.Name }}
  app.kubernetes.io/part-of: postern
  app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}
