{{/* The only container of all that is privileged: it mounts into kubelet's directory. */}}
{{- define "driver.driver" -}}
{{- $global := .Values.global -}}
{{- $linux := .Values.linux -}}
- name: secrets-store
  image: {{ include "postern-lib.image" (dict "context" . "image" $linux.image) }}
  imagePullPolicy: {{ $linux.image.pullPolicy }}
  args:
    - --node-id=$(KUBE_NODE_NAME)
    - --endpoint=unix:///csi/csi.sock
    - --kubelet-root={{ $linux.kubeletRootDir }}
    - --gateway-dir={{ $global.runDir }}/gateway
    - --gateway-uid={{ int64 $global.gatewayUid }}
    - --providers-dir={{ $global.runDir }}/providers
    - --provider-uids={{ include "driver.providerUids" . }}
    - --legacy-providers-dirs={{ join "," $global.legacyProvidersDirs }}
    - --staging-dir={{ $global.runDir }}/staging
    - --metrics-addr={{ $linux.metricsAddr }}
    - --volume-size={{ int64 .Values.volumeSize }}
    - --rotation-poll-interval={{ ternary (default "2m" .Values.rotationPollInterval) "0" .Values.enableSecretRotation }}
    {{- with include "driver.syncNamespaces" . }}
    - --sync-secret-namespaces={{ . }}
    {{- end }}
    {{- if .Values.allowParameterOverrides }}
    - --allow-parameter-overrides
    {{- end }}
    {{- with $global.startupTaint }}
    {{- if .enabled }}
    - --startup-taint-key={{ .key }}
    {{- with .providers }}
    - --startup-taint-providers={{ join "," . }}
    {{- end }}
    {{- end }}
    {{- end }}
    {{- include "postern-lib.logArgs" . | nindent 4 }}
    {{- with $linux.extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- $node := dict "name" "KUBE_NODE_NAME" "valueFrom" (dict "fieldRef" (dict "fieldPath" "spec.nodeName")) }}
  env:
    {{- prepend (include "postern-lib.traceEnv" . | fromYamlArray) $node | uniq | toYaml | nindent 4 }}
    {{- with $linux.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - name: healthz
      containerPort: {{ int .Values.livenessProbe.port }}
    - name: metrics
      containerPort: {{ include "postern-lib.metricsPort" . }}
  # By the CSI socket: whether it can mount.
  livenessProbe:
    httpGet:
      path: /healthz
      port: healthz
    initialDelaySeconds: 10
    periodSeconds: 15
    timeoutSeconds: 10
    failureThreshold: 5
  # Whether the gateway answers, too.
  readinessProbe:
    httpGet:
      path: /readyz
      port: metrics
    periodSeconds: 5
    timeoutSeconds: 4
    failureThreshold: 3
  resources:
    {{- toYaml $linux.driver.resources | nindent 4 }}
  securityContext:
    privileged: true
    runAsUser: 0
    runAsGroup: 0
    readOnlyRootFilesystem: true
  volumeMounts:
    - name: plugin-dir
      mountPath: /csi
    # Mounts made here have to show on the node, and so in pods.
    - name: mountpoint-dir
      mountPath: {{ $linux.kubeletRootDir }}/pods
      mountPropagation: Bidirectional
    - name: run-dir
      mountPath: {{ $global.runDir }}
    - name: api-token
      mountPath: /var/run/secrets/kubernetes.io/serviceaccount
      readOnly: true
    {{- range $i, $dir := $global.legacyProvidersDirs }}
    - name: legacy-{{ $i }}
      mountPath: {{ $dir }}
    {{- end }}
    {{- with $linux.volumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* provider=uid of all providers that may be installed, so that installing one does not restart the driver. */}}
{{- define "driver.providerUids" -}}
{{- $owners := dict (print (int64 .Values.global.gatewayUid)) "gateway" -}}
{{- $pairs := list -}}
{{- range $name, $uid := .Values.global.providerUids -}}
{{- $uid = print (int64 $uid) -}}
{{- with get $owners $uid -}}
{{- fail (printf "global.providerUids: %s and %s have the same user id %s, by which they are told apart" . $name $uid) -}}
{{- end -}}
{{- $_ := set $owners $uid $name -}}
{{- $pairs = append $pairs (printf "%s=%s" $name $uid) -}}
{{- end -}}
{{- join "," $pairs -}}
{{- end -}}

{{/* The namespaces that are open for Kubernetes Secrets, joined by commas; "*" is all. */}}
{{- define "driver.syncNamespaces" -}}
{{- $namespaces := uniq .Values.syncSecret.namespaces -}}
{{- if or (has "*" $namespaces) (and .Values.syncSecret.enabled (not $namespaces)) -}}
{{- $namespaces = list "*" -}}
{{- end -}}
{{- join "," $namespaces -}}
{{- end -}}

{{- define "driver.registrar" -}}
{{- $linux := .Values.linux -}}
- name: node-driver-registrar
  image: {{ include "postern-lib.image" (dict "context" . "image" $linux.registrarImage) }}
  imagePullPolicy: {{ $linux.registrarImage.pullPolicy }}
  args:
    - --v={{ int $linux.registrar.logVerbosity }}
    - --csi-address=/csi/csi.sock
    - --kubelet-registration-path={{ $linux.kubeletRootDir }}/plugins/csi-secrets-store/csi.sock
  resources:
    {{- toYaml $linux.registrar.resources | nindent 4 }}
  {{- include "driver.sidecarSecurity" . | nindent 2 }}
  volumeMounts:
    - name: plugin-dir
      mountPath: /csi
    - name: registration-dir
      mountPath: /registration
{{- end -}}

{{- define "driver.livenessProbe" -}}
{{- $linux := .Values.linux -}}
- name: liveness-probe
  image: {{ include "postern-lib.image" (dict "context" . "image" $linux.livenessProbeImage) }}
  imagePullPolicy: {{ $linux.livenessProbeImage.pullPolicy }}
  args:
    - --v={{ int .Values.livenessProbe.logLevel }}
    - --csi-address=/csi/csi.sock
    - --probe-timeout=3s
    - --http-endpoint=:{{ int .Values.livenessProbe.port }}
  resources:
    {{- toYaml $linux.livenessProbe.resources | nindent 4 }}
  {{- include "driver.sidecarSecurity" . | nindent 2 }}
  volumeMounts:
    - name: plugin-dir
      mountPath: /csi
{{- end -}}

{{/* Root, as whom the CSI socket and kubelet's directories belong, and nothing else. */}}
{{- define "driver.sidecarSecurity" -}}
securityContext:
  runAsUser: 0
  runAsGroup: 0
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}
