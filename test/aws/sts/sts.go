// Package sts answers AssumeRoleWithWebIdentity as AWS STS does. The token is
// verified by the double itself or by a MinIO behind it; the role's trust policy
// always decides here.
package sts

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/aws/api"
	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/aws/iam"
	"github.com/postern-dev/postern/test/aws/oidc"
	"github.com/postern-dev/postern/test/token"
)

// defaultLifetime is how long a session lasts if the request does not say.
const defaultLifetime = time.Hour

// Config is what a Service needs.
type Config struct {
	Partition string
	Directory *iam.Directory
	Verifier  *oidc.Providers
	// Upstream verifies the tokens if it is set.
	Upstream *Upstream
}

// Service answers logins.
type Service struct{ cfg Config }

// New returns a service.
func New(cfg Config) *Service { return &Service{cfg: cfg} }

// Input is a request.
type Input struct {
	RoleArn         string
	RoleSessionName string
	Token           string `json:"WebIdentityToken"`
	DurationSeconds int
}

// Assume verifies the token, asks the role's trust policy, and answers
// credentials.
func (s *Service) Assume(ctx context.Context, in Input) (api.Answer, error) {
	lifetime := cmp.Or(time.Duration(in.DurationSeconds)*time.Second, defaultLifetime)
	claims, credentials, err := s.verify(ctx, in, lifetime)
	if err != nil {
		return nil, err
	}
	audience, _ := claims.Matches(s.audiences(claims.Issuer))
	web := iam.Token{Issuer: claims.Issuer, Subject: claims.Subject, Audience: audience}
	if err := s.cfg.Directory.TrustsToken(in.RoleArn, web); err != nil {
		return nil, &api.Error{Status: http.StatusForbidden, Code: "AccessDenied", Message: err.Error()}
	}
	if err := s.cfg.Directory.CheckDuration(in.RoleArn, lifetime); err != nil {
		return nil, api.BadRequest("ValidationError", err.Error())
	}
	made, caller, err := s.cfg.Directory.NewSession(iam.Login{
		Role: in.RoleArn, Session: in.RoleSessionName, Lifetime: lifetime, Credentials: credentials,
	})
	if err != nil {
		return nil, err
	}
	return api.Answer{
		"AssumedRoleUser": api.Answer{"Arn": caller.ARN, "AssumedRoleId": s.cfg.Directory.RoleID(in.RoleArn) + ":" + in.RoleSessionName},
		"Audience":        audience,
		"Credentials": api.Answer{
			"AccessKeyId": made.AccessKeyID, "SecretAccessKey": made.SecretAccessKey,
			"SessionToken": made.SessionToken, "Expiration": made.Expiration.Format(time.RFC3339),
		},
		"Provider": "arn:" + s.cfg.Partition + ":iam::" + caller.Account + ":oidc-provider/" +
			strings.TrimSuffix(strings.TrimPrefix(claims.Issuer, "https://"), "/"),
		"SubjectFromWebIdentityToken": claims.Subject,
	}, nil
}

// verify returns what the token says, and the credentials that MinIO made for it,
// if MinIO verified it.
func (s *Service) verify(ctx context.Context, in Input, lifetime time.Duration) (token.Claims, control.Credentials, error) {
	claims, err := token.Peek(in.Token)
	if err != nil {
		return token.Claims{}, control.Credentials{}, refuse(err, claims)
	}
	if s.cfg.Upstream != nil {
		credentials, err := s.cfg.Upstream.login(ctx, in.Token, claims, lifetime)
		if err != nil {
			return token.Claims{}, control.Credentials{}, refuse(err, claims)
		}
		return claims, credentials, nil
	}
	claims, err = s.cfg.Verifier.Verify(ctx, in.Token, s.audiences(claims.Issuer))
	if err != nil {
		return token.Claims{}, control.Credentials{}, refuse(err, claims)
	}
	return claims, control.Credentials{}, nil
}

// audiences are the client ids of the issuer's OIDC provider.
func (s *Service) audiences(issuer string) []string {
	if accepted, ok := s.cfg.Verifier.Audiences(issuer); ok {
		return accepted
	}
	return []string{iam.STSAudience}
}

// refuse says why a token is refused, with AWS' codes and words.
func refuse(err error, claims token.Claims) error {
	invalid := func(message string) error { return api.BadRequest("InvalidIdentityToken", message) }
	switch {
	case errors.Is(err, token.ErrMalformed):
		return invalid("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	case errors.Is(err, token.ErrIssuer):
		return invalid("No OpenIDConnect provider found in your account for " + claims.Issuer)
	case errors.Is(err, token.ErrUnreachable):
		return api.BadRequest("IDPCommunicationError", "The identity provider could not be reached.")
	case errors.Is(err, token.ErrKey):
		return invalid("Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity documentation for requirements")
	case errors.Is(err, token.ErrAudience):
		return invalid("Incorrect token audience")
	case errors.Is(err, token.ErrExpired):
		_, when, _ := strings.Cut(err.Error(), ": ")
		return api.BadRequest("ExpiredTokenException", "Token expired: "+when)
	case errors.Is(err, token.ErrSignature), errors.Is(err, token.ErrEarly):
		return invalid("The web identity token that was passed could not be validated by AWS.")
	default:
		return err
	}
}
