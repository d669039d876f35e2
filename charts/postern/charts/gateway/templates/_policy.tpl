{{/* Name of the ConfigMap with the rules; "" without rules. */}}
{{- define "gateway.policyConfigMap" -}}
{{- if .Values.policy.rules -}}
{{- include "postern-lib.fullname" . }}-policy
{{- else -}}
{{- .Values.policy.existingConfigMap -}}
{{- end -}}
{{- end -}}

{{- define "gateway.policyData" -}}
policy.yaml: |
  {{- dict "rules" .Values.policy.rules | toYaml | nindent 2 }}
{{- end -}}

{{/* Name of what the check of the rules is made of. */}}
{{- define "gateway.policyCheck" -}}
{{- include "postern-lib.fullname" . }}-policy-check
{{- end -}}

{{/* Its labels are not those that select the gateway's pods. */}}
{{- define "gateway.policyCheckLabels" -}}
app.kubernetes.io/name: postern-gateway-policy-check
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
app.kubernetes.io/part-of: postern
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "gateway.policyCheckHook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/*
The pod that checks the rules: the gateway's program, with no token, no network that it would use, and no directory of
the node. It runs before there are service accounts and quotas of the release, and so has none of these.
*/}}
{{- define "gateway.policyCheckPod" -}}
{{- $uid := int64 .Values.global.gatewayUid -}}
restartPolicy: Never
automountServiceAccountToken: false
enableServiceLinks: false
{{- with include "postern-lib.imagePullSecrets" . }}
{{ . }}
{{- end }}
nodeSelector:
  {{- merge (dict "kubernetes.io/os" "linux") .Values.nodeSelector | toYaml | nindent 2 }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- $security := dict "runAsNonRoot" true "runAsUser" $uid "runAsGroup" $uid "seccompProfile" (dict "type" "RuntimeDefault") }}
  {{- mergeOverwrite $security .Values.podSecurityContext | toYaml | nindent 2 }}
containers:
  - name: policy-check
    image: {{ include "postern-lib.image" (dict "context" . "image" .Values.image) }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args: [policy, check, /etc/postern/policy/policy.yaml]
    # What is wrong is then in the pod's status, too.
    terminationMessagePolicy: FallbackToLogsOnError
    resources:
      requests:
        cpu: 10m
        memory: 32Mi
      limits:
        memory: 128Mi
    securityContext:
      {{- $container := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) }}
      {{- mergeOverwrite $container .Values.securityContext | toYaml | nindent 6 }}
    volumeMounts:
      - name: policy
        mountPath: /etc/postern/policy
        readOnly: true
volumes:
  - name: policy
    configMap:
      name: {{ ternary (include "gateway.policyCheck" .) .Values.policy.existingConfigMap (not (empty .Values.policy.rules)) }}
{{- end -}}
