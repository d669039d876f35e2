{{/*
A provider, whole: service account, DaemonSet, NetworkPolicy and, if wanted, ServiceMonitor. The chart's name is
provider-<name>. Takes
  context       the part's context
  args          the provider's own flags
  env, volumes, volumeMounts   as in postern-lib.daemonSet
  egress        NetworkPolicy rules for its store
*/}}
{{- define "postern-lib.provider" -}}
{{- $context := .context -}}
{{- $name := trimPrefix "provider-" $context.Chart.Name -}}
{{- $global := $context.Values.global -}}
{{- $uid := required (printf "global.providerUids.%s: which user id does the provider run as?" $name) (get $global.providerUids $name) -}}
{{- $dir := printf "%s/providers/%s" $global.runDir $name -}}
{{- include "postern-lib.serviceAccount" $context }}
{{- $args := list (printf "--listen-dir=%s" $dir) (printf "--allowed-uids=%d" (int64 $global.gatewayUid)) (printf "--health-addr=:%d" (int64 $context.Values.metricsPort)) -}}
{{- $socket := dict "name" "sockets" "hostPath" (dict "path" $dir "type" "DirectoryOrCreate") -}}
{{- $tolerations := list -}}
{{- if $global.startupTaint.enabled -}}
{{- $tolerations = list (dict "key" $global.startupTaint.key "operator" "Exists") -}}
{{- end }}
{{ include "postern-lib.daemonSet" (dict
    "context" $context
    "uid" $uid
    "fsGroup" $uid
    "gracePeriod" 30
    "args" (concat $args (default list .args))
    "env" .env
    "tolerations" $tolerations
    "volumes" (prepend (default list .volumes) $socket)
    "volumeMounts" (prepend (default list .volumeMounts) (dict "name" "sockets" "mountPath" $dir))
) }}
{{- include "postern-lib.networkPolicy" (dict "context" $context "egress" .egress) }}
{{- include "postern-lib.serviceMonitor" $context }}
{{- end -}}
