{{/*
A daemon without privileges: the gateway and each provider. Takes
  context       the part's context
  uid           user and group id
  args          flags
  env           environment variables, beside those for traces and .Values.env
  tolerations   beside .Values.tolerations
  volumes, volumeMounts   beside .Values.extraVolumes and .Values.extraVolumeMounts
  fsGroup       group of volumes that are made for the pod; none if empty
  gracePeriod   seconds to end in: more than --drain-timeout and the last export of traces

But for its volumes of type hostPath, which is where the sockets are that the others on the node connect to, its pods
are such as the pod security standard "restricted" allows.
*/}}
{{- define "postern-lib.daemonSet" -}}
{{- $values := .context.Values -}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {{ include "postern-lib.fullname" .context }}
  namespace: {{ .context.Release.Namespace }}
  labels:
    {{- include "postern-lib.labels" .context | nindent 4 }}
  {{- with $values.daemonsetAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  selector:
    matchLabels:
      {{- include "postern-lib.selectorLabels" .context | nindent 6 }}
  updateStrategy:
    {{- toYaml $values.updateStrategy | nindent 4 }}
  template:
    metadata:
      labels:
        {{- include "postern-lib.podLabels" .context | nindent 8 }}
        {{- with $values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $values.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      {{- include "postern-lib.podSpec" . | nindent 6 }}
{{- end -}}

{{- define "postern-lib.podSpec" -}}
{{- $values := .context.Values -}}
serviceAccountName: {{ include "postern-lib.serviceAccountName" .context }}
automountServiceAccountToken: {{ $values.serviceAccount.automountToken }}
# A Service called postern-... would set variables that are taken for flags.
enableServiceLinks: false
{{- with include "postern-lib.imagePullSecrets" .context }}
{{ . }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
terminationGracePeriodSeconds: {{ .gracePeriod }}
nodeSelector:
  {{- merge (dict "kubernetes.io/os" "linux") $values.nodeSelector | toYaml | nindent 2 }}
{{- with concat $values.tolerations (default list .tolerations) }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- $security := dict "runAsNonRoot" true "runAsUser" (int64 .uid) "runAsGroup" (int64 .uid) "seccompProfile" (dict "type" "RuntimeDefault") }}
  {{- with .fsGroup }}
  {{- $_ := set $security "fsGroup" (int64 .) }}
  {{- end }}
  {{- mergeOverwrite $security $values.podSecurityContext | toYaml | nindent 2 }}
containers:
  - name: {{ .context.Chart.Name }}
    image: {{ include "postern-lib.image" (dict "context" .context "image" $values.image) }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    args:
      {{- toYaml .args | nindent 6 }}
      {{- include "postern-lib.logArgs" .context | nindent 6 }}
      {{- with $values.extraArgs }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with concat (include "postern-lib.traceEnv" .context | fromYamlArray) (default list .env) $values.env }}
    env:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    ports:
      - name: metrics
        containerPort: {{ int $values.metricsPort }}
    livenessProbe:
      httpGet:
        path: /healthz
        port: metrics
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 3
    readinessProbe:
      httpGet:
        path: /readyz
        port: metrics
      periodSeconds: 2
      timeoutSeconds: 4
      failureThreshold: 3
    resources:
      {{- toYaml $values.resources | nindent 6 }}
    securityContext:
      {{- $container := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) }}
      {{- mergeOverwrite $container $values.securityContext | toYaml | nindent 6 }}
    volumeMounts:
      {{- concat .volumeMounts $values.extraVolumeMounts | toYaml | nindent 6 }}
volumes:
  {{- concat .volumes $values.extraVolumes | toYaml | nindent 2 }}
{{- end -}}

{{/* Service account of a part. */}}
{{- define "postern-lib.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "postern-lib.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "postern-lib.labels" . | nindent 4 }}
  {{- with .Values.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}
{{- end -}}
