package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/postern-dev/postern/providers/sdk"
)

// maxClients bounds the regions whose clients are kept: there are fewer than that.
const maxClients = 64

// unknownCode is the SDK's, of an answer that has none.
const unknownCode = "UnknownError"

// tokenService is AWS' Security Token Service, in all regions.
type tokenService struct {
	cfg aws.Config

	mu sync.Mutex
	// clients are by region: each has a budget of retries of its own, so that one
	// region's outage is not another's.
	clients map[string]*sts.Client
}

func newTokenService(cfg aws.Config) *tokenService {
	return &tokenService{cfg: cfg, clients: make(map[string]*sts.Client)}
}

// credentials assumes the pod's role with the pod's token, at the region's own
// endpoint and for the role's default time.
func (s *tokenService) credentials(ctx context.Context, use Use) (aws.Credentials, error) {
	answer, err := s.client(use.Region).AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{
		RoleArn:          aws.String(use.RoleARN),
		RoleSessionName:  aws.String(sessionName(use.Subject)),
		WebIdentityToken: aws.String(use.Token.Reveal()),
	})
	if err != nil {
		return aws.Credentials{}, stsError(err, use)
	}
	c := answer.Credentials
	if c == nil {
		return aws.Credentials{}, nil
	}
	return aws.Credentials{
		AccessKeyID: aws.ToString(c.AccessKeyId), SecretAccessKey: aws.ToString(c.SecretAccessKey),
		SessionToken: aws.ToString(c.SessionToken), Expires: aws.ToTime(c.Expiration),
	}, nil
}

func (s *tokenService) client(region string) *sts.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	client, ok := s.clients[region]
	if !ok {
		if len(s.clients) >= maxClients {
			clear(s.clients) // of regions that do not exist
		}
		client = sts.NewFromConfig(s.cfg, func(o *sts.Options) {
			o.Region = region
			o.Credentials = aws.AnonymousCredentials{} // the token says who asks
			o.ClientLogMode = 0                        // the request holds it
		})
		s.clients[region] = client
	}
	return client
}

// stsError says what STS said. The SDK's own errors are not kept where there was
// an answer: some hold a part of it.
func stsError(err error, use Use) *Error {
	e := &Error{Operation: OperationAssumeRole}
	if answered, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		e.Status = answered.HTTPStatusCode()
		e.RetryAfter = sdk.RetryAfter(answered.Response.Header)
	}
	api, refusal := errors.AsType[smithy.APIError](err)
	refusal = refusal && api.ErrorCode() != unknownCode
	unsent, sending := errors.AsType[*smithyhttp.RequestSendError](err)
	switch {
	case refusal:
		e.Code, e.Message = said(api.ErrorCode(), use.Token), said(api.ErrorMessage(), use.Token)
		e.Kind = kindOf(api.ErrorCode(), e.Status)
	case e.Status != 0:
		e.Kind, e.Message = Unavailable, "the answer is none of AWS' STS: check what is at its endpoint, such as a proxy"
	case sending:
		e.Kind, e.Message, e.Err = Unavailable, said(unsent.Err.Error(), use.Token), unsent.Err
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
		e.Kind, e.Message, e.Err = Unavailable, "no answer in time", err
	default:
		e.Kind, e.Message, e.Err = Invalid, said(err.Error(), use.Token), err
	}
	return e
}

// Session names may be as long as this, and then end in a digest of this length.
const (
	maxSessionName = 64
	digestLength   = 8
)

// sessionName is who has the credentials, as CloudTrail shows it:
// "namespace.serviceaccount". A name that is too long for AWS is cut, and a digest
// tells it from others that begin alike.
func sessionName(s Subject) string {
	whole := s.Namespace + "." + s.ServiceAccount
	name := strings.Map(func(r rune) rune {
		if r == '_' || r == '+' || r == '=' || r == ',' || r == '.' || r == '@' || r == '-' ||
			'0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '-'
	}, whole)
	if name == whole && len(name) <= maxSessionName {
		return name
	}
	sum := sha256.Sum256([]byte(whole))
	return name[:min(len(name), maxSessionName-digestLength-1)] + "-" + hex.EncodeToString(sum[:])[:digestLength]
}
