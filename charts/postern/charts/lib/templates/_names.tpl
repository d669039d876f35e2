{{/* Name of a part's objects: <release>-<chart>. */}}
{{- define "postern-lib.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (default .Chart.Name .Values.nameOverride) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that select a part's pods. They never change: a DaemonSet's selector cannot. */}}
{{- define "postern-lib.selectorLabels" -}}
app.kubernetes.io/name: postern-{{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of a part's pods. No version: pods are replaced when their image changes, not with each new chart. */}}
{{- define "postern-lib.podLabels" -}}
{{ include "postern-lib.selectorLabels" . }}
app.kubernetes.io/component: {{ .Chart.Name }}
app.kubernetes.io/part-of: postern
{{- end -}}

{{/* Labels of a part's objects. */}}
{{- define "postern-lib.labels" -}}
{{ include "postern-lib.podLabels" . }}
{{- with .Chart.AppVersion }}
app.kubernetes.io/version: {{ . | quote }}
{{- end }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
An image's full name. Takes context, image (repository, tag, digest). The tag is the chart's appVersion if there is
none; global.imageRegistry replaces the registry.
*/}}
{{- define "postern-lib.image" -}}
{{- $repository := .image.repository -}}
{{- with .context.Values.global.imageRegistry -}}
{{- $parts := splitList "/" $repository -}}
{{- $host := first $parts -}}
{{- if and (gt (len $parts) 1) (or (contains "." $host) (contains ":" $host) (eq $host "localhost")) -}}
{{- $parts = rest $parts -}}
{{- end -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (join "/" $parts) -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .context.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* imagePullSecrets of all and of this part. */}}
{{- define "postern-lib.imagePullSecrets" -}}
{{- with concat .Values.global.imagePullSecrets .Values.imagePullSecrets | uniq -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* Name of a part's service account. */}}
{{- define "postern-lib.serviceAccountName" -}}
{{- default (include "postern-lib.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}
