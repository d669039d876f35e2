package iam

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// podIdentityService is the principal that Pod Identity assumes roles as.
const podIdentityService = "pods.eks.amazonaws.com"

// ErrNotTrusted is AWS' answer where a role's trust policy does not allow a token.
var ErrNotTrusted = errors.New("Not authorized to perform sts:AssumeRoleWithWebIdentity") //nolint:staticcheck // AWS' words

// ErrTooLong says that a session would last longer than the role allows.
var ErrTooLong = errors.New("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.") //nolint:staticcheck,revive // AWS' words

// Token is what a verified web identity token says.
type Token struct {
	Issuer, Subject, Audience string
}

// provider is how IAM names an issuer.
func (t Token) provider() string { return providerName(t.Issuer) }

func providerName(issuer string) string {
	return strings.TrimSuffix(strings.TrimPrefix(issuer, "https://"), "/")
}

// TrustsToken returns ErrNotTrusted unless the role's trust policy lets the token
// assume it.
func (d *Directory) TrustsToken(roleARN string, t Token) error {
	account, _, err := SplitRole(roleARN)
	if err != nil {
		return ErrNotTrusted
	}
	name := t.provider()
	decision := d.trust(roleARN, t.Issuer).Decide(Query{
		Action: "sts:AssumeRoleWithWebIdentity",
		Context: map[string]string{
			strings.ToLower(name) + ":sub": t.Subject, strings.ToLower(name) + ":aud": t.Audience,
		},
	}, func(p *Principals) bool {
		return slices.Contains(p.Federated, "arn:"+d.partition+":iam::"+account+":oidc-provider/"+name)
	})
	if decision != Allowed {
		return ErrNotTrusted
	}
	return nil
}

// TrustsPodIdentity tells whether EKS may assume the role, and tag the session so.
func (d *Directory) TrustsPodIdentity(roleARN string, tags map[string]string) bool {
	context := make(map[string]string, len(tags))
	for key, value := range tags {
		context["aws:requesttag/"+strings.ToLower(key)] = value
	}
	for _, action := range []string{"sts:AssumeRole", "sts:TagSession"} {
		decision := d.trust(roleARN, "").Decide(Query{Action: action, Context: context}, func(p *Principals) bool {
			return slices.Contains(p.Service, podIdentityService)
		})
		if decision != Allowed {
			return false
		}
	}
	return true
}

// CheckDuration returns ErrTooLong if the role's sessions may not last so long.
func (d *Directory) CheckDuration(roleARN string, lifetime time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if lifetime > d.roles[roleARN].max {
		return ErrTooLong
	}
	return nil
}

// trust returns a role's trust policy. The short form trusts every issuer whose
// tokens are verified.
func (d *Directory) trust(roleARN, issuer string) *Policy {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.roles[roleARN]
	if r.trust == nil && len(r.serviceAccounts) != 0 {
		return d.guidesTrust(roleARN, r.serviceAccounts, issuer)
	}
	return r.trust
}

// guidesTrust is the trust policy that the guides of IRSA and Pod Identity say.
func (d *Directory) guidesTrust(roleARN string, serviceAccounts []string, issuer string) *Policy {
	account, _, _ := SplitRole(roleARN)
	var subjects list
	for _, name := range serviceAccounts {
		namespace, serviceAccount, _ := strings.Cut(name, "/")
		subjects = append(subjects, "system:serviceaccount:"+namespace+":"+serviceAccount)
	}
	name := providerName(issuer)
	return &Policy{Version: policyVersion, Statement: []Statement{{
		Effect: "Allow", Principal: &Principals{Service: list{podIdentityService}},
		Action: list{"sts:AssumeRole", "sts:TagSession"},
	}, {
		Effect:    "Allow",
		Principal: &Principals{Federated: list{"arn:" + d.partition + ":iam::" + account + ":oidc-provider/" + name}},
		Action:    list{"sts:AssumeRoleWithWebIdentity"},
		Condition: map[string]map[string]list{"StringEquals": {name + ":sub": subjects, name + ":aud": {STSAudience}}},
	}}}
}
