package iam

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/postern-dev/postern/test/aws/control"
)

// DefaultMaxSession is how long a role's sessions may last if it does not say.
const DefaultMaxSession = time.Hour

// Audiences of tokens for IRSA and for Pod Identity.
const (
	STSAudience         = "sts.amazonaws.com"
	PodIdentityAudience = "pods.eks.amazonaws.com"
)

// Caller is who makes a request.
type Caller struct {
	// ARN is what messages call it: of the session or of the user.
	ARN string
	// Account it belongs to.
	Account string
	// Principal is the ARN of the role or of the user, which has the policy.
	Principal string
	// Session is the session's name; "" for a user.
	Session string
	// Tags of the session.
	Tags map[string]string
}

// session is what an access key stands for. A user's has no token and no end.
type session struct {
	caller      Caller
	credentials control.Credentials
}

type role struct {
	id     string // AROA...
	policy *Policy
	trust  *Policy
	// serviceAccounts stand for the trust policy that the guides say.
	serviceAccounts []string
	max             time.Duration
}

// Directory holds roles, users, sessions and associations.
//
// Invariants:
//  1. Each access key is one session's or one user's.
//  2. A session's permissions are those that its role has now, not at login.
type Directory struct {
	partition string
	now       func() time.Time

	mu           sync.Mutex
	roles        map[string]role    // by ARN
	users        map[string]*Policy // by ARN
	sessions     map[string]session // by access key
	associations map[[2]string]string
}

// NewDirectory returns an empty one, for a partition such as aws-cn.
func NewDirectory(partition string, now func() time.Time) *Directory {
	d := &Directory{partition: partition, now: now}
	d.Reset()
	return d
}

// Reset forgets everything.
func (d *Directory) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.roles, d.users = map[string]role{}, map[string]*Policy{}
	d.sessions, d.associations = map[string]session{}, map[[2]string]string{}
}

// PutRole puts a role.
func (d *Directory) PutRole(r control.Role) error {
	if _, _, err := SplitRole(r.ARN); err != nil {
		return err
	}
	put := role{max: time.Duration(r.MaxSessionDuration) * time.Second, serviceAccounts: r.ServiceAccounts}
	if put.max == 0 {
		put.max = DefaultMaxSession
	}
	var err error
	if len(r.Policy) != 0 {
		if put.policy, err = ParsePolicy(r.Policy); err != nil {
			return fmt.Errorf("role %s: %w", r.ARN, err)
		}
	}
	switch {
	case len(r.Trust) != 0 && len(r.ServiceAccounts) != 0:
		return fmt.Errorf("role %s: trust and serviceAccounts exclude each other", r.ARN)
	case len(r.Trust) != 0:
		if put.trust, err = ParseTrust(r.Trust); err != nil {
			return fmt.Errorf("role %s: trust: %w", r.ARN, err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	put.id = d.roles[r.ARN].id
	if put.id == "" {
		put.id = "AROA" + rand.Text()[:17]
	}
	d.roles[r.ARN] = put
	return nil
}

// DeleteRole removes a role. Its sessions stay, and may do nothing.
func (d *Directory) DeleteRole(arn string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.roles[arn]
	delete(d.roles, arn)
	return ok
}

// PutUser puts a user with permanent keys.
func (d *Directory) PutUser(u control.User, account string) error {
	policy, err := ParsePolicy(u.Policy)
	switch {
	case err != nil:
		return fmt.Errorf("user %s: %w", u.Name, err)
	case u.Name == "" || u.AccessKeyID == "" || u.SecretAccessKey == "":
		return fmt.Errorf("user %q: name, accessKeyId and secretAccessKey are needed", u.Name)
	}
	arn := "arn:" + d.partition + ":iam::" + account + ":user/" + u.Name
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users[arn] = policy
	d.sessions[u.AccessKeyID] = session{
		caller:      Caller{ARN: arn, Account: account, Principal: arn},
		credentials: control.Credentials{AccessKeyID: u.AccessKeyID, SecretAccessKey: u.SecretAccessKey},
	}
	return nil
}

// PutAssociation puts a Pod Identity association.
func (d *Directory) PutAssociation(a control.Association) error {
	if _, _, err := SplitRole(a.Role); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.associations[[2]string{a.Namespace, a.ServiceAccount}] = a.Role
	return nil
}

// DeleteAssociation removes one.
func (d *Directory) DeleteAssociation(namespace, serviceAccount string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := [2]string{namespace, serviceAccount}
	_, ok := d.associations[key]
	delete(d.associations, key)
	return ok
}

// Associated returns the role of a service account.
func (d *Directory) Associated(namespace, serviceAccount string) (string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	arn, ok := d.associations[[2]string{namespace, serviceAccount}]
	return arn, ok
}

// SplitRole returns the account and the name of a role, without its path.
func SplitRole(arn string) (account, name string, err error) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "iam" || !strings.HasPrefix(parts[5], "role/") {
		return "", "", fmt.Errorf("%q is not the ARN of a role", arn)
	}
	return parts[4], parts[5][strings.LastIndex(parts[5], "/")+1:], nil
}

// Login is a new session of a role.
type Login struct {
	Role, Session string
	Lifetime      time.Duration
	Tags          map[string]string
	// Credentials are those that somebody else made; the zero value for new ones.
	Credentials control.Credentials
}

// NewSession makes a session and its credentials.
func (d *Directory) NewSession(l Login) (control.Credentials, Caller, error) {
	account, name, err := SplitRole(l.Role)
	if err != nil {
		return control.Credentials{}, Caller{}, err
	}
	c := l.Credentials
	if c.AccessKeyID == "" {
		c = newCredentials(d.now().Add(l.Lifetime))
	}
	caller := Caller{
		ARN:     "arn:" + d.partition + ":sts::" + account + ":assumed-role/" + name + "/" + l.Session,
		Account: account, Principal: l.Role, Session: l.Session, Tags: maps.Clone(l.Tags),
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sessions[c.AccessKeyID] = session{caller: caller, credentials: c}
	return c, caller, nil
}

func newCredentials(end time.Time) control.Credentials {
	secret := make([]byte, 30)
	_, _ = rand.Read(secret) // it never fails
	return control.Credentials{
		AccessKeyID:     "ASIA" + rand.Text()[:16],
		SecretAccessKey: base64.StdEncoding.EncodeToString(secret),
		SessionToken:    "IQoJb3JpZ2luX2Vj" + rand.Text() + rand.Text() + rand.Text() + "==",
		Expiration:      end.UTC().Truncate(time.Second),
	}
}

// RoleID returns the unique id of a role.
func (d *Directory) RoleID(arn string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.roles[arn].id
}

// Errors of Lookup, in AWS' words.
var (
	ErrUnknownKey = errors.New("The security token included in the request is invalid.") //nolint:staticcheck,revive // AWS' words
	ErrExpired    = errors.New("The security token included in the request is expired")  //nolint:staticcheck // AWS' words
)

// Lookup returns the secret key of an access key, and whose it is. The token has
// to be the session's.
func (d *Directory) Lookup(accessKey, token string) (secret string, caller Caller, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.sessions[accessKey]
	switch {
	case !ok || s.credentials.SessionToken != token:
		return "", Caller{}, ErrUnknownKey
	case token != "" && !d.now().Before(s.credentials.Expiration):
		return "", s.caller, ErrExpired
	}
	return s.credentials.SecretAccessKey, s.caller, nil
}

// Whose returns whose an access key is, unverified.
func (d *Directory) Whose(accessKey string) Caller {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sessions[accessKey].caller
}

// Expire ends the sessions of a role and says how many there were.
func (d *Directory) Expire(role string) int {
	return d.eachSession(role, func(key string, s session) {
		s.credentials.Expiration = d.now()
		d.sessions[key] = s
	})
}

// Forget removes the sessions of a role and says how many there were.
func (d *Directory) Forget(role string) int {
	return d.eachSession(role, func(key string, _ session) { delete(d.sessions, key) })
}

func (d *Directory) eachSession(role string, do func(string, session)) (count int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, s := range maps.Clone(d.sessions) {
		if s.caller.Principal == role {
			do(key, s)
			count++
		}
	}
	return count
}
