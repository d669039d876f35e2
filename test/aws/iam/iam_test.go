package iam_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/aws/iam"
)

const (
	role   = "arn:aws:iam::111122223333:role/team/app"
	caller = "arn:aws:sts::111122223333:assumed-role/app/web"
	secret = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:prod/db-AbCdEf"
)

// directory has a role with a policy of statements, and a session of it.
func directory(t *testing.T, statements string) (*iam.Directory, iam.Caller) {
	t.Helper()
	d := iam.NewDirectory("aws", time.Now)
	err := d.PutRole(control.Role{ARN: role, Policy: json.RawMessage(`{"Version":"2012-10-17","Statement":[` + statements + `]}`)})
	if err != nil {
		t.Fatal(err)
	}
	_, who, err := d.NewSession(iam.Login{Role: role, Session: "web", Lifetime: time.Hour, Tags: map[string]string{"kubernetes-namespace": "prod"}})
	if err != nil {
		t.Fatal(err)
	}
	return d, who
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	const (
		get   = "secretsmanager:GetSecretValue"
		allow = `{"Effect":"Allow","Action":"secretsmanager:GetSecretValue","Resource":`
	)
	for name, test := range map[string]struct {
		statements string
		want       bool
	}{
		"none":                       {``, false},
		"the very ARN":               {allow + `"` + secret + `"}`, true},
		"characters at its end":      {allow + `"arn:aws:secretsmanager:eu-west-1:111122223333:secret:prod/db-??????"}`, true},
		"too few of them":            {allow + `"arn:aws:secretsmanager:eu-west-1:111122223333:secret:prod/db-?????"}`, false},
		"beginning":                  {allow + `"arn:aws:secretsmanager:eu-west-1:111122223333:secret:prod/*"}`, true},
		"middle":                     {allow + `"arn:aws:secretsmanager:eu-west-1:111122223333:secret:*/db-*"}`, true},
		"everything":                 {allow + `"*"}`, true},
		"all regions and accounts":   {allow + `"arn:aws:secretsmanager:*:*:secret:*"}`, true},
		"a star does not reach over": {allow + `"arn:aws:secretsmanager:*:secret:prod/db-AbCdEf"}`, false},
		"other region":               {allow + `"arn:aws:secretsmanager:us-east-1:111122223333:secret:prod/*"}`, false},
		"other account":              {allow + `"arn:aws:secretsmanager:eu-west-1:444455556666:secret:prod/*"}`, false},
		"other case":                 {allow + `"arn:aws:secretsmanager:eu-west-1:111122223333:secret:PROD/*"}`, false},
		"one of several":             {allow + `["arn:aws:s3:::b","*"]}`, true},
		"action, in any case":        {`{"Effect":"Allow","Action":"SecretsManager:getsecretvalue","Resource":"*"}`, true},
		"action's beginning":         {`{"Effect":"Allow","Action":["s3:*","secretsmanager:Get*"],"Resource":"*"}`, true},
		"every action":               {`{"Effect":"Allow","Action":"*","Resource":"*"}`, true},
		"another action":             {`{"Effect":"Allow","Action":"secretsmanager:DescribeSecret","Resource":"*"}`, false},
		"all but this action":        {`{"Effect":"Allow","NotAction":"secretsmanager:Get*","Resource":"*"}`, false},
		"all but another":            {`{"Effect":"Allow","NotAction":"secretsmanager:Put*","Resource":"*"}`, true},
		"all but this resource":      {`{"Effect":"Allow","Action":"*","NotResource":"` + secret + `"}`, false},
		"all but another resource":   {`{"Effect":"Allow","Action":"*","NotResource":"arn:aws:s3:::b"}`, true},
		"denial outweighs":           {allow + `"*"},{"Effect":"Deny","Action":"*","Resource":"` + secret + `"}`, false},
		"denial of another":          {allow + `"*"},{"Effect":"Deny","Action":"*","Resource":"arn:aws:s3:::b"}`, true},
		"condition":                  {allow + `"*","Condition":{"StringEquals":{"secretsmanager:VersionStage":"AWSCURRENT"}}}`, true},
		"condition, key's case":      {allow + `"*","Condition":{"StringEquals":{"SecretsManager:versionstage":"AWSCURRENT"}}}`, true},
		"condition of others":        {allow + `"*","Condition":{"StringEquals":{"secretsmanager:VersionStage":["x","y"]}}}`, false},
		"two conditions, one not":    {allow + `"*","Condition":{"StringEquals":{"secretsmanager:VersionStage":"AWSCURRENT"},"StringLike":{"aws:PrincipalAccount":"2*"}}}`, false},
		"key that is not there":      {allow + `"*","Condition":{"StringEquals":{"aws:ResourceTag/app":"web"}}}`, false},
		"not there, if it exists":    {allow + `"*","Condition":{"StringEqualsIfExists":{"aws:ResourceTag/app":"web"}}}`, true},
		"not there, and negated":     {allow + `"*","Condition":{"StringNotEquals":{"aws:ResourceTag/app":"web"}}}`, true},
		"negated":                    {allow + `"*","Condition":{"StringNotLike":{"secretsmanager:VersionStage":"AWS*"}}}`, false},
		"null":                       {allow + `"*","Condition":{"Null":{"aws:ResourceTag/app":"true"}}}`, true},
		"not null":                   {allow + `"*","Condition":{"Null":{"aws:ResourceTag/app":"false"}}}`, false},
		"equal but for case":         {allow + `"*","Condition":{"StringEqualsIgnoreCase":{"secretsmanager:VersionStage":"awscurrent"}}}`, true},
		"not equal":                  {allow + `"*","Condition":{"StringNotEquals":{"secretsmanager:VersionStage":"AWSCURRENT"}}}`, false},
		"not that ARN":               {allow + `"*","Condition":{"ArnNotLike":{"aws:PrincipalArn":"arn:aws:iam::*:role/team/*"}}}`, false},
		"boolean":                    {allow + `"*","Condition":{"Bool":{"aws:SecureTransport":"true"}}}`, false},
		"any value of several":       {allow + `"*","Condition":{"ForAnyValue:StringLike":{"secretsmanager:VersionStage":["x","AWS*"]}}}`, true},
		"ARN":                        {allow + `"*","Condition":{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:role/team/*"}}}`, true},
		"variable":                   {allow + `"arn:aws:secretsmanager:*:*:secret:${aws:PrincipalTag/kubernetes-namespace}/*"}`, true},
		"variable without a value":   {allow + `"arn:aws:secretsmanager:*:*:secret:${aws:PrincipalTag/other}*"}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, who := directory(t, test.statements)
			err := d.Authorize(iam.Access{
				Caller: who, Action: get, Resource: secret, Shown: "prod/db",
				Context: map[string]string{"secretsmanager:VersionStage": "AWSCURRENT"},
			})
			if (err == nil) != test.want {
				t.Errorf("Authorize() = %v, want it allowed: %t", err, test.want)
			}
		})
	}
}

func TestDenialsSayWhy(t *testing.T) {
	t.Parallel()
	all := `{"Effect":"Allow","Action":"*","Resource":"*"}`
	resourceAllow := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111122223333"},"Action":"secretsmanager:*","Resource":"*"}]}`
	resourceDeny := strings.Replace(resourceAllow, "Allow", "Deny", 1)
	const user = "User: " + caller + " is not authorized to perform: secretsmanager:GetSecretValue"
	for name, test := range map[string]struct {
		statements, resource string
		owner, shown         string
		want                 string
	}{
		"nothing allows":            {shown: "prod/db", want: user + " on resource: prod/db because no identity-based policy allows the secretsmanager:GetSecretValue action"},
		"no resource":               {want: user + " because no identity-based policy allows the secretsmanager:GetSecretValue action"},
		"denial":                    {statements: all + `,{"Effect":"Deny","Action":"secretsmanager:*","Resource":"*"}`, shown: "x", want: user + " on resource: x with an explicit deny in an identity-based policy"},
		"denial of the resource":    {statements: all, resource: resourceDeny, shown: "x", want: user + " on resource: x with an explicit deny in a resource-based policy"},
		"the resource allows":       {resource: resourceAllow},
		"another account's":         {statements: all, owner: "444455556666", shown: "x", want: user + " on resource: x because no resource-based policy allows the secretsmanager:GetSecretValue action"},
		"which allows":              {statements: all, owner: "444455556666", resource: resourceAllow},
		"which alone is too little": {owner: "444455556666", resource: resourceAllow, shown: "x", want: user + " on resource: x because no identity-based policy allows the secretsmanager:GetSecretValue action"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, who := directory(t, test.statements)
			access := iam.Access{Caller: who, Action: "secretsmanager:GetSecretValue", Resource: secret, Shown: test.shown, Owner: test.owner}
			if test.resource != "" {
				var err error
				if access.Policy, err = iam.ParseResourcePolicy([]byte(test.resource)); err != nil {
					t.Fatal(err)
				}
			}
			err := d.Authorize(access)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestResourcePolicyPrincipals(t *testing.T) {
	t.Parallel()
	for principal, want := range map[string]bool{
		`"*"`: true, `{"AWS":"*"}`: true, `{"AWS":"111122223333"}`: true, `{"AWS":["x","arn:aws:iam::111122223333:root"]}`: true,
		`{"AWS":"` + role + `"}`: true, `{"AWS":"` + caller + `"}`: true,
		`{"AWS":"arn:aws:iam::111122223333:role/other"}`: false, `{"AWS":"444455556666"}`: false,
		`{"AWS":"arn:aws:iam::444455556666:root"}`: false, `{"Service":"pods.eks.amazonaws.com"}`: false,
	} {
		d, who := directory(t, "")
		policy, err := iam.ParseResourcePolicy([]byte(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":` + principal + `,"Action":"*","Resource":"*"}}`))
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Authorize(iam.Access{Caller: who, Action: "a:b", Resource: secret, Policy: policy}); (err == nil) != want {
			t.Errorf("principal %s: %v, want it allowed: %t", principal, err, want)
		}
	}
}

func TestPoliciesThatIAMRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ document, want string }{
		"no JSON":                {`{`, "EOF"},
		"old version":            {`{"Version":"2008-10-17","Statement":[]}`, "Version"},
		"unknown member":         {`{"Version":"2012-10-17","Statements":[]}`, "unknown field"},
		"member of a statement":  {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Actions":"*","Resource":"*"}]}`, "unknown field"},
		"effect":                 {`{"Version":"2012-10-17","Statement":[{"Effect":"allow","Action":"*","Resource":"*"}]}`, "effect"},
		"no action":              {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Resource":"*"}]}`, "Action"},
		"both actions":           {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","NotAction":"a:b","Resource":"*"}]}`, "Action"},
		"action without service": {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"GetSecretValue","Resource":"*"}]}`, "vendor"},
		"no resource":            {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*"}]}`, "no Resource"},
		"both resources":         {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*","NotResource":"*"}]}`, "exclude"},
		"resource that is none":  {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"prod/db"}]}`, "ARN"},
		"principal":              {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}]}`, "Principal"},
		"unknown operator":       {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"NumericEquals":{"a":"1"}}}]}`, "operator"},
	} {
		_, err := iam.ParsePolicy([]byte(test.document))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error about %s", name, err, test.want)
		}
	}
	if _, err := iam.ParseResourcePolicy([]byte(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`)); err == nil {
		t.Error("a resource's policy without Principal: want an error")
	}
	for _, statement := range []string{
		`{"Effect":"Allow","Action":"*"}`, `{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}`, `{"Effect":"Allow","Principal":{"Nobody":"*"},"Action":"*"}`,
	} {
		if _, err := iam.ParseTrust([]byte(`{"Version":"2012-10-17","Statement":` + statement + `}`)); err == nil {
			t.Errorf("trust policy %s: want an error", statement)
		}
	}
}

func TestTrust(t *testing.T) {
	t.Parallel()
	const provider = `"Principal":{"Federated":"arn:aws:iam::111122223333:oidc-provider/oidc.example.com/id/ABC"},"Action":"sts:AssumeRoleWithWebIdentity"`
	const equals = `"Condition":{"StringEquals":{"oidc.example.com/id/ABC:sub":"system:serviceaccount:shop:web","oidc.example.com/id/ABC:aud":"sts.amazonaws.com"}}`
	token := iam.Token{Issuer: "https://oidc.example.com/id/ABC", Subject: "system:serviceaccount:shop:web", Audience: "sts.amazonaws.com"}
	for name, test := range map[string]struct {
		statement string
		token     iam.Token
		want      bool
	}{
		"all as the guide says": {`{"Effect":"Allow",` + provider + `,` + equals + `}`, token, true},
		"other subject":         {`{"Effect":"Allow",` + provider + `,` + equals + `}`, iam.Token{Issuer: token.Issuer, Subject: "system:serviceaccount:shop:db", Audience: token.Audience}, false},
		"other audience":        {`{"Effect":"Allow",` + provider + `,` + equals + `}`, iam.Token{Issuer: token.Issuer, Subject: token.Subject, Audience: "x"}, false},
		"other issuer":          {`{"Effect":"Allow",` + provider + `,` + equals + `}`, iam.Token{Issuer: "https://oidc.example.com/id/DEF", Subject: token.Subject, Audience: token.Audience}, false},
		"no condition":          {`{"Effect":"Allow",` + provider + `}`, token, true},
		"namespace":             {`{"Effect":"Allow",` + provider + `,"Condition":{"StringLike":{"oidc.example.com/id/ABC:sub":"system:serviceaccount:shop:*"}}}`, token, true},
		"other action":          {`{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::111122223333:oidc-provider/oidc.example.com/id/ABC"},"Action":"sts:AssumeRole"}`, token, false},
		"other account's":       {`{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::444455556666:oidc-provider/oidc.example.com/id/ABC"},"Action":"sts:AssumeRoleWithWebIdentity"}`, token, false},
		"denied":                {`{"Effect":"Allow",` + provider + `},{"Effect":"Deny",` + provider + `,` + equals + `}`, token, false},
		"pod identity's":        {`{"Effect":"Allow","Principal":{"Service":"pods.eks.amazonaws.com"},"Action":["sts:AssumeRole","sts:TagSession"]}`, token, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := iam.NewDirectory("aws", time.Now)
			err := d.PutRole(control.Role{ARN: role, Trust: json.RawMessage(`{"Version":"2012-10-17","Statement":[` + test.statement + `]}`)})
			if err != nil {
				t.Fatal(err)
			}
			if err := d.TrustsToken(role, test.token); (err == nil) != test.want || (err != nil && !errors.Is(err, iam.ErrNotTrusted)) {
				t.Errorf("TrustsToken() = %v, want it trusted: %t", err, test.want)
			}
			if got := d.TrustsPodIdentity(role, nil); got != (name == "pod identity's") {
				t.Errorf("TrustsPodIdentity() = %t", got)
			}
		})
	}
}

// The tags of a session are conditions of who may have the role.
func TestTrustByTags(t *testing.T) {
	t.Parallel()
	d := iam.NewDirectory("aws", time.Now)
	if err := d.PutRole(control.Role{ARN: role, Trust: json.RawMessage(`{"Version":"2012-10-17","Statement":{"Effect":"Allow",
		"Principal":{"Service":"pods.eks.amazonaws.com"},"Action":["sts:AssumeRole","sts:TagSession"],
		"Condition":{"StringEquals":{"aws:RequestTag/kubernetes-namespace":"shop","aws:RequestTag/kubernetes-service-account":"web"}}}}`)}); err != nil {
		t.Fatal(err)
	}
	for account, want := range map[string]bool{"shop/web": true, "shop/db": false, "bank/web": false, "": false} {
		namespace, name, _ := strings.Cut(account, "/")
		tags := map[string]string{"kubernetes-namespace": namespace, "kubernetes-service-account": name}
		if got := d.TrustsPodIdentity(role, tags); got != want {
			t.Errorf("%q: trusted: %t, want %t", account, got, want)
		}
	}
}

// EKS tags the sessions that it makes, so it has to be allowed both.
func TestPodIdentityNeedsBothActions(t *testing.T) {
	t.Parallel()
	for actions, want := range map[string]bool{
		`["sts:AssumeRole","sts:TagSession"]`: true, `"sts:*"`: true, `"sts:AssumeRole"`: false, `"sts:TagSession"`: false,
	} {
		d := iam.NewDirectory("aws", time.Now)
		trust := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Service":"pods.eks.amazonaws.com"},"Action":` + actions + `}}`
		if err := d.PutRole(control.Role{ARN: role, Trust: json.RawMessage(trust)}); err != nil {
			t.Fatal(err)
		}
		if got := d.TrustsPodIdentity(role, nil); got != want {
			t.Errorf("with %s: TrustsPodIdentity() = %t, want %t", actions, got, want)
		}
	}
}

func TestServiceAccountsAreShortForTrust(t *testing.T) {
	t.Parallel()
	d := iam.NewDirectory("aws", time.Now)
	if err := d.PutRole(control.Role{ARN: role, ServiceAccounts: []string{"shop/web"}}); err != nil {
		t.Fatal(err)
	}
	token := iam.Token{Issuer: "https://any.example.com", Subject: "system:serviceaccount:shop:web", Audience: "sts.amazonaws.com"}
	if err := d.TrustsToken(role, token); err != nil {
		t.Errorf("the service account: %v", err)
	}
	token.Subject = "system:serviceaccount:shop:db"
	if err := d.TrustsToken(role, token); err == nil {
		t.Error("another is trusted")
	}
	if !d.TrustsPodIdentity(role, nil) {
		t.Error("Pod Identity is not trusted")
	}
	both := control.Role{ARN: role, ServiceAccounts: []string{"a/b"}, Trust: json.RawMessage(`{"Version":"2012-10-17","Statement":[]}`)}
	if err := d.PutRole(both); err == nil {
		t.Error("both forms: want an error")
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	clock := time.Now()
	d := iam.NewDirectory("aws", func() time.Time { return clock })
	if err := d.PutRole(control.Role{ARN: role}); err != nil {
		t.Fatal(err)
	}
	login := func() control.Credentials {
		t.Helper()
		c, who, err := d.NewSession(iam.Login{Role: role, Session: "web", Lifetime: time.Hour})
		if err != nil || who.ARN != caller || who.Account != "111122223333" {
			t.Fatalf("NewSession() = %+v, %v", who, err)
		}
		return c
	}
	lookup := func(c control.Credentials) error {
		_, _, err := d.Lookup(c.AccessKeyID, c.SessionToken)
		return err
	}
	c := login()
	if secret, who, err := d.Lookup(c.AccessKeyID, c.SessionToken); secret != c.SecretAccessKey || who.Principal != role || err != nil {
		t.Errorf("Lookup() = %+v, %v", who, err)
	}
	if _, _, err := d.Lookup(c.AccessKeyID, "another's"); !errors.Is(err, iam.ErrUnknownKey) {
		t.Errorf("with another token: %v", err)
	}
	clock = c.Expiration
	if err := lookup(c); !errors.Is(err, iam.ErrExpired) {
		t.Errorf("at its end: %v", err)
	}
	c = login()
	if n := d.Expire(role); n != 2 {
		t.Errorf("Expire() = %d, want 2", n)
	}
	if err := lookup(c); !errors.Is(err, iam.ErrExpired) {
		t.Errorf("expired: %v", err)
	}
	if n := d.Forget(role); n != 2 {
		t.Errorf("Forget() = %d, want 2", n)
	}
	if err := lookup(c); !errors.Is(err, iam.ErrUnknownKey) {
		t.Errorf("forgotten: %v", err)
	}
	if d.Expire(role) != 0 || d.Forget(role) != 0 {
		t.Error("there are sessions left")
	}
	if _, _, err := d.NewSession(iam.Login{Role: "arn:aws:iam::1:user/x"}); err == nil {
		t.Error("a session of no role: want an error")
	}
}

// A session may do what its role may now, whatever it might at login.
func TestSessionsFollowTheirRole(t *testing.T) {
	t.Parallel()
	d, who := directory(t, `{"Effect":"Allow","Action":"*","Resource":"*"}`)
	access := iam.Access{Caller: who, Action: "a:b", Resource: "*"}
	if err := d.Authorize(access); err != nil {
		t.Fatal(err)
	}
	id := d.RoleID(role)
	if err := d.PutRole(control.Role{ARN: role}); err != nil {
		t.Fatal(err)
	}
	if err := d.Authorize(access); err == nil {
		t.Error("the role's policy is gone, and yet it is allowed")
	}
	if got := d.RoleID(role); got != id || id == "" {
		t.Errorf("the role's id is %q, and was %q", got, id)
	}
	if !d.DeleteRole(role) || d.DeleteRole(role) {
		t.Error("DeleteRole() is not true once")
	}
	if err := d.Authorize(access); err == nil {
		t.Error("the role is gone, and yet it is allowed")
	}
}

func TestUsers(t *testing.T) {
	t.Parallel()
	d := iam.NewDirectory("aws-cn", time.Now)
	user := control.User{Name: "admin", AccessKeyID: "AKIA", SecretAccessKey: "s", Policy: json.RawMessage(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`)}
	if err := d.PutUser(user, "111122223333"); err != nil {
		t.Fatal(err)
	}
	secret, who, err := d.Lookup("AKIA", "")
	if secret != "s" || who.ARN != "arn:aws-cn:iam::111122223333:user/admin" || err != nil {
		t.Errorf("Lookup() = %+v, %v", who, err)
	}
	if err := d.Authorize(iam.Access{Caller: who, Action: "a:b", Resource: "*"}); err != nil {
		t.Errorf("with its policy: %v", err)
	}
	if _, _, err := d.Lookup("AKIA", "token"); !errors.Is(err, iam.ErrUnknownKey) {
		t.Errorf("a user has no token: %v", err)
	}
	user.SecretAccessKey = ""
	if err := d.PutUser(user, "1"); err == nil {
		t.Error("a user without a key: want an error")
	}
	user.Policy = nil
	if err := d.PutUser(user, "1"); err == nil {
		t.Error("a user without a policy: want an error")
	}
}
