{{/* The files that the chart keeps, as JSON: those of the values, and the one that "helm test" mounts. */}}
{{- define "provider-file.files" -}}
{{- merge (dict .Release.Namespace (dict "helm-test" "It works.")) (deepCopy .Values.files) | toJson -}}
{{- end -}}
