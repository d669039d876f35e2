package identity

import (
	"cmp"
	"fmt"
	"strings"
)

// fix says what to do about a refusal; "" if it does not tell.
func (e *exchange) fix(w words, kind ErrorKind) string {
	switch {
	case w.reason == "SERVICE_DISABLED":
		return fmt.Sprintf("Enable the API %s in the project that the message names: gcloud services enable",
			cmp.Or(e.said(w.service, maxClaim), "that is disabled"))
	case kind == Throttled:
		return ""
	}
	switch e.operation {
	case OperationSTS:
		return e.exchangeFix(w, kind)
	case OperationGenerateAccessToken:
		return e.impersonationFix(w)
	case OperationOAuth2:
		return e.keyFix(w)
	default:
		return ""
	}
}

// exchangeFix says what a workload identity provider wants.
func (e *exchange) exchangeFix(w words, kind ErrorKind) string {
	subject := subjectClaim(e.key.subject)
	switch w.code {
	case "invalid_target", "invalid_request":
		return e.poolFix()
	case "unauthorized_client":
		return fmt.Sprintf("The attribute condition of %s has to admit the pod's token: issuer %s, subject %s", e.key.audience, e.issuer(), subject)
	case "invalid_grant":
	default:
		if strings.Contains(w.text, "Identity Pool does not exist") {
			return e.poolFix()
		}
		return ""
	}
	switch {
	case kind == TokenExpired:
		return "kubelet sends another token with its next call. If this does not pass, check the node's clock"
	case w.noIssuer():
		return fmt.Sprintf("Check that the issuer %s serves its discovery document and its keys to the internet, or give the keys to %s "+
			"(gcloud iam workload-identity-pools providers update-oidc --jwk-json-path)", e.issuer(), e.key.audience)
	default:
		return fmt.Sprintf("Check that %s trusts exactly what the pod's token has: issuer %s, subject %s, audience %s, signed with the "+
			"keys that the issuer serves now", e.key.audience, e.issuer(), subject, e.audience())
	}
}

// poolFix says what has to exist.
func (e *exchange) poolFix() string {
	if pool := e.key.federation().pool(); pool != "" {
		return fmt.Sprintf("Check that workload identity is enabled for the cluster with pool %s, and that %s is its project, location "+
			"and name", pool, strings.TrimPrefix(e.key.audience, namespacePrefix+pool+":"))
	}
	return fmt.Sprintf("Check that the workload identity pool and the provider exist and are not disabled: %s, with the number of the "+
		"project and not its name", e.key.audience)
}

func (e *exchange) issuer() string { return e.claim(claimsOf(e.secrets[0]).Issuer) }

func (e *exchange) audience() string {
	return e.claim(strings.Join(claimsOf(e.secrets[0]).Audience, ","))
}

// claim is one of the pod's token, for messages. A token that is no JWT has none.
func (e *exchange) claim(value string) string { return cmp.Or(e.said(value, maxClaim), "(not known)") }

// Roles for impersonation, and the permission that they have.
const (
	roleWorkloadIdentity = "roles/iam.workloadIdentityUser"
	roleTokenCreator     = "roles/iam.serviceAccountTokenCreator" //nolint:gosec // a name
)

// impersonationFix says what IAM has to allow.
func (e *exchange) impersonationFix(w words) string {
	switch w.code {
	case "PERMISSION_DENIED":
		return e.grantFix()
	case "NOT_FOUND", "INVALID_ARGUMENT":
		return "Check that these service accounts exist: " + strings.Join(append(e.key.chain(), e.key.serviceAccount), ", ") +
			" (annotations iam.gke.io/gcp-service-account and iam.gke.io/gcp-service-account-delegates of service account " +
			e.key.subject.String() + ")"
	case "UNAUTHENTICATED":
		return "Google does not take a token that it has just given: check the node's clock"
	default:
		return ""
	}
}

// grantFix says who has to have which role on which service account.
func (e *exchange) grantFix() string {
	who := e.key.federation().Member(e.key.subject)
	chain := append(e.key.chain(), e.key.serviceAccount)
	if len(chain) == 1 {
		return fmt.Sprintf("Check that service account %s exists, and grant %s the role %s on it: gcloud iam service-accounts "+
			"add-iam-policy-binding %[1]s --role=%[3]s --member=%[2]q", chain[0], who, roleWorkloadIdentity)
	}
	steps := make([]string, 0, len(chain))
	for _, next := range chain {
		steps = append(steps, fmt.Sprintf("%s on %s", who, next))
		who = serviceAccountMember(next)
	}
	return fmt.Sprintf("Check that all these service accounts exist, and grant the role %s to each: %s", roleTokenCreator,
		strings.Join(steps, "; "))
}

// keyFix says what is wrong with a key.
func (e *exchange) keyFix(w words) string {
	const ref = "the Secret that nodePublishSecretRef names"
	switch {
	case w.code == "invalid_grant" && strings.Contains(w.text, "reasonable timeframe"):
		return "Check the node's clock"
	case w.code == "invalid_grant" && strings.Contains(w.text, "account not found"):
		return "The service account of key.json in " + ref + " does not exist any more: use the key of another"
	case w.code == "invalid_grant" || w.code == "invalid_client":
		return "The key has been deleted, disabled or replaced: make a new one and put it as key.json into " + ref + ". Workload " +
			"identity needs no keys"
	default:
		return ""
	}
}
