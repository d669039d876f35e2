{{/*
The audience of the pods' tokens: what is said, else what the place takes where they are exchanged. Empty if nothing
says where that is.
*/}}
{{- define "provider-gcp.tokenAudience" -}}
{{- $identity := .Values.gcp.workloadIdentity -}}
{{- if $identity.tokenAudience -}}
{{- $identity.tokenAudience -}}
{{- else if hasPrefix "identitynamespace:" $identity.audience -}}
{{- /* A project's id may have a colon, a cluster's URL has one after its scheme. */ -}}
{{- regexReplaceAll "^identitynamespace:(.*?):https://.*$" $identity.audience "${1}" -}}
{{- else if $identity.audience -}}
{{- $identity.audience -}}
{{- else if .Values.gcp.project -}}
{{- printf "%s.svc.id.goog" .Values.gcp.project -}}
{{- end -}}
{{- end -}}

{{/*
Tokens that the provider wants of kubelet, as a YAML list; the umbrella adds them to the CSIDriver.
*/}}
{{- define "provider-gcp.tokenRequests" -}}
{{- $requests := list -}}
{{- with include "provider-gcp.tokenAudience" . }}{{ $requests = append $requests (dict "audience" .) }}{{ end -}}
{{- concat $requests .Values.tokenRequests | toYaml -}}
{{- end -}}
