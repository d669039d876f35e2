{{/*
Name of the ConfigMap with the clouds. The provider reads them when it starts, so what is in them is a part of the name:
a change replaces the pods.
*/}}
{{- define "provider-azure.clouds" -}}
{{- printf "%s-clouds-%s" (include "postern-lib.fullname" . | trunc 47 | trimSuffix "-") (.Values.azure.cloudEnvironments | toJson | sha256sum | trunc 8) -}}
{{- end -}}
