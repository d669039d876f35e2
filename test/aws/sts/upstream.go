package sts

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/token"
)

const (
	maxAnswer = 1 << 20
	// loginTimeout bounds a login, with what a start of MinIO takes.
	loginTimeout = 30 * time.Second
	startPoll    = 50 * time.Millisecond
)

// Upstream is a MinIO: an STS that somebody else wrote, which fetches the issuer's
// keys and checks signature, audience and expiry.
type Upstream struct {
	url, role string
	now       func() time.Time
	client    *http.Client
}

// NewUpstream returns one at a URL, where role is MinIO's own.
func NewUpstream(address, role string, now func() time.Time) *Upstream {
	return &Upstream{url: address, role: role, now: now, client: &http.Client{Transport: &http.Transport{}, Timeout: loginTimeout}}
}

// Close closes its connections.
func (u *Upstream) Close() { u.client.CloseIdleConnections() }

// errStarting says that MinIO has read its issuer's keys, but not its policies: a
// moment in which it says that it is ready, and refuses every login.
var errStarting = errors.New("MinIO is still starting")

// login has MinIO verify a token and make credentials. It waits for a MinIO that is
// starting.
func (u *Upstream) login(ctx context.Context, raw string, claims token.Claims, lifetime time.Duration) (control.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	form := url.Values{
		"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleArn": {u.role},
		"WebIdentityToken": {raw}, "DurationSeconds": {strconv.Itoa(int(lifetime.Seconds()))},
	}
	ticker := time.NewTicker(startPoll)
	defer ticker.Stop()
	for {
		body, status, err := u.post(ctx, form)
		if err == nil && status == http.StatusOK {
			return readCredentials(body)
		}
		if err == nil {
			err = u.refusal(body, status, claims)
		}
		if !errors.Is(err, errStarting) {
			return control.Credentials{}, err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return control.Credentials{}, err
		}
	}
}

func (u *Upstream) post(ctx context.Context, form url.Values) (body []byte, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.url, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, 0, fmt.Errorf("call MinIO: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := u.client.Do(req)
	if err != nil {
		return nil, 0, fmt.Errorf("call MinIO: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, 0, fmt.Errorf("call MinIO: %w", err)
	}
	return body, resp.StatusCode, nil
}

func readCredentials(body []byte) (control.Credentials, error) {
	var answer struct {
		Result struct {
			Credentials struct {
				AccessKeyID     string `xml:"AccessKeyId"`
				SecretAccessKey string
				SessionToken    string
				Expiration      time.Time
			}
		} `xml:"AssumeRoleWithWebIdentityResult"`
	}
	if err := xml.Unmarshal(body, &answer); err != nil {
		return control.Credentials{}, fmt.Errorf("read MinIO's answer: %w", err)
	}
	c := answer.Result.Credentials
	return control.Credentials{
		AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken, Expiration: c.Expiration.UTC(),
	}, nil
}

// refusal is why MinIO refused a token. It has one code for all that is wrong with
// a token, so its words tell.
func (u *Upstream) refusal(body []byte, status int, claims token.Claims) error {
	var answer struct {
		Error struct{ Code, Message string }
	}
	if err := xml.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("MinIO answered with status %d", status)
	}
	switch code, message := answer.Error.Code, answer.Error.Message; {
	case code != "InvalidParameterValue":
		return fmt.Errorf("MinIO answered with status %d: %s: %s", status, code, message)
	case strings.Contains(message, "None of the given policies"):
		return errStarting
	case strings.Contains(message, "is expired"):
		return token.Expired(u.now(), claims)
	case strings.Contains(message, "OpenID Client ID"):
		return fmt.Errorf("%w: %q", token.ErrAudience, claims.Audience)
	default:
		return fmt.Errorf("%w: %s", token.ErrSignature, message)
	}
}
