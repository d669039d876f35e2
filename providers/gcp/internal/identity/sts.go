package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
)

// Words of a token exchange (RFC 8693). Both of Google's exchanges take them as JSON
// with the names of the RFC.
const (
	grantTokenExchange = "urn:ietf:params:oauth:grant-type:token-exchange" //nolint:gosec // a name
	typeAccessToken    = "urn:ietf:params:oauth:token-type:access_token"   //nolint:gosec // a name
	typeJWT            = "urn:ietf:params:oauth:token-type:jwt"
)

// federate exchanges a pod's token for one that Google knows.
// https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token
func (e *exchange) federate(ctx context.Context, token sdk.SecretString) (access, error) {
	err := e.post(ctx, e.key.tokenURL, sdk.SecretString{}, map[string]string{
		"grant_type": grantTokenExchange, "audience": e.key.audience, "scope": cloudScope,
		"requested_token_type": typeAccessToken, "subject_token_type": typeJWT, "subject_token": token.Reveal(),
	})
	if err != nil {
		return access{}, err
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		// ExpiresIn need not be there.
		ExpiresIn float64 `json:"expires_in"`
	}
	if json.Unmarshal(e.last.body, &answer) != nil {
		return access{}, e.malformed()
	}
	return e.checked(answer.AccessToken, answer.TokenType, expiry(answer.ExpiresIn))
}

// maxLife is more than any access token has.
const maxLife = 24 * time.Hour

// expiry is so many seconds from now; no seconds: it is not known.
func expiry(seconds float64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(min(seconds, maxLife.Seconds()) * float64(time.Second)))
}

// impersonate exchanges a pod's token that Google knows for one of the service
// account.
// https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken
func (e *exchange) impersonate(ctx context.Context, api string, federated sdk.SecretString) (access, error) {
	e.operation = OperationGenerateAccessToken
	e.hide(federated)
	message := struct {
		Scope     []string `json:"scope"`
		Lifetime  string   `json:"lifetime"`
		Delegates []string `json:"delegates,omitempty"`
	}{Scope: []string{cloudScope}, Lifetime: "3600s"}
	for _, delegate := range e.key.chain() {
		message.Delegates = append(message.Delegates, serviceAccountName(delegate))
	}
	address := fmt.Sprintf("%s/v1/%s:generateAccessToken", api, serviceAccountName(url.PathEscape(e.key.serviceAccount)))
	if err := e.post(ctx, address, federated, message); err != nil {
		return access{}, err
	}
	var answer struct {
		AccessToken string    `json:"accessToken"`
		ExpireTime  time.Time `json:"expireTime"`
	}
	if json.Unmarshal(e.last.body, &answer) != nil {
		return access{}, e.malformed()
	}
	return e.checked(answer.AccessToken, bearerType, answer.ExpireTime)
}

// serviceAccountName is its resource's. The address says the project.
func serviceAccountName(address string) string { return "projects/-/serviceAccounts/" + address }

// checked is a token that can be used.
func (e *exchange) checked(token, tokenType string, expires time.Time) (access, error) {
	problem := ""
	switch {
	case token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return access{}, e.malformed()
	case tokenType != "" && !strings.EqualFold(tokenType, bearerType):
		problem = "the answer's token is no bearer token"
	case !expires.IsZero() && !time.Now().Before(expires):
		problem = fmt.Sprintf("the token has expired when it arrives, at %s: check the node's clock", expires.UTC().Format(time.RFC3339))
	}
	if problem != "" {
		return access{}, &Error{Operation: e.operation, Kind: Unavailable, Message: problem}
	}
	return access{token: sdk.NewSecretString(token), expires: expires}, nil
}
