package iam

// Permissions that the double asks for.
const (
	AccessVersion       = "secretmanager.versions.access"
	GetVersion          = "secretmanager.versions.get"
	GetSecret           = "secretmanager.secrets.get"
	ListSecrets         = "secretmanager.secrets.list"
	RenderParameter     = "parametermanager.parameterVersions.render"
	GetParameter        = "parametermanager.parameters.get"
	GetParameterVersion = "parametermanager.parameterVersions.get"
	GetAccessToken      = "iam.serviceAccounts.getAccessToken"
	implicitDelegation  = "iam.serviceAccounts.implicitDelegation"
)

// roles are the predefined ones, as far as the double asks for their permissions.
func roles() map[string][]string {
	return map[string][]string{
		"roles/secretmanager.secretAccessor":       {AccessVersion},
		"roles/secretmanager.viewer":               {GetVersion, GetSecret, ListSecrets},
		"roles/secretmanager.admin":                {AccessVersion, GetVersion, GetSecret, ListSecrets},
		"roles/parametermanager.parameterAccessor": {RenderParameter, GetParameter, GetParameterVersion},
		"roles/parametermanager.parameterViewer":   {GetParameter, GetParameterVersion},
		"roles/iam.workloadIdentityUser":           {GetAccessToken},
		"roles/iam.serviceAccountTokenCreator":     {GetAccessToken, implicitDelegation},
	}
}
