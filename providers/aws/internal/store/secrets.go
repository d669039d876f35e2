package store

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/postern-dev/postern/providers/aws/internal/logkey"
	"github.com/postern-dev/postern/providers/aws/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

const (
	getSecretValue      = "GetSecretValue"
	batchGetSecretValue = "BatchGetSecretValue"
	describeSecret      = "DescribeSecret"
	listSecrets         = "ListSecrets"
	// suffixLength is that of a dash and the six random characters that end a
	// secret's ARN.
	suffixLength = 7
)

// mayBatch reports whether it is worth asking for a secret together with others.
func (c *caller) mayBatch(ref Ref) bool {
	return !c.refusals.has(c.refusal(batchGetSecretValue, "")) && !c.refusals.has(c.refusal(batchGetSecretValue, ref.ID))
}

// mayDescribe reports whether it is worth asking for a secret's versions.
func (c *caller) mayDescribe(id string) bool { return !c.refusals.has(c.refusal(describeSecret, id)) }

func (c *caller) refusal(operation, object string) refusal {
	return refusal{identity: c.region.Identity, region: c.region.Name, operation: operation, object: object}
}

// getSecret reads one version of a secret.
func (c *caller) getSecret(ctx context.Context, ref Ref) Answer {
	a := newAttempts(ctx)
	out, err := c.clients.secrets.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{
		SecretId: &ref.ID, VersionId: optional(ref.Version), VersionStage: optional(ref.Label),
	}, c.forSecrets(a))
	if err != nil {
		return Answer{Err: c.failed(operation{params.SecretsManager, getSecretValue, ref.ID}, a, err)}
	}
	return c.answerOf(ref, types.SecretValueEntry{
		Name: out.Name, VersionId: out.VersionId, SecretString: out.SecretString, SecretBinary: out.SecretBinary,
	})
}

func (c *caller) answerOf(ref Ref, secret types.SecretValueEntry) Answer {
	answer := Answer{Version: aws.ToString(secret.VersionId), Name: aws.ToString(secret.Name)}
	switch {
	case secret.SecretString != nil:
		answer.Contents = sdk.NewSecret([]byte(*secret.SecretString))
	case secret.SecretBinary != nil:
		answer.Contents = sdk.NewSecret(secret.SecretBinary)
	default:
		return Answer{Err: &Error{
			Kind: Unavailable, Service: params.SecretsManager, Region: c.region.Name, Operation: getSecretValue,
			Object: ref.ID, Message: "the answer has neither SecretString nor SecretBinary",
		}}
	}
	return answer
}

// batchGetSecrets reads the current versions of several secrets, whose ids are all
// names, or all ARNs.
func (c *caller) batchGetSecrets(ctx context.Context, refs []Ref) map[Ref]Answer {
	found := make(map[Ref]Answer, len(refs))
	in := &secretsmanager.BatchGetSecretValueInput{SecretIdList: make([]string, len(refs))}
	for i, ref := range refs {
		in.SecretIdList[i] = ref.ID
	}
	// One page would do. What is not there after so many is asked for alone.
	for range refs {
		a := newAttempts(ctx)
		out, err := c.clients.secrets.BatchGetSecretValue(ctx, in, c.forSecrets(a))
		if err != nil {
			failure := c.failed(operation{params.SecretsManager, batchGetSecretValue, ""}, a, err)
			c.batchFailed(ctx, failure, refs, found)
			return found
		}
		for _, secret := range out.SecretValues {
			if ref, ok := askedFor(refs, aws.ToString(secret.ARN), aws.ToString(secret.Name)); ok {
				found[ref] = c.answerOf(ref, secret)
			}
		}
		for _, item := range out.Errors {
			c.itemFailed(item, refs, found)
		}
		if aws.ToString(out.NextToken) == "" {
			return found
		}
		in.NextToken = out.NextToken
	}
	return found
}

// batchFailed is for a batch that failed as a whole. Where that says nothing of
// its secrets, they are left to be asked for alone.
func (c *caller) batchFailed(ctx context.Context, failure *Error, refs []Ref, found map[Ref]Answer) {
	// A denial that names another action is of what one of the secrets needs.
	denied := failure.Kind == Denied && strings.Contains(failure.Message, batchGetSecretValue)
	if denied || failure.unsupported() {
		if c.refusals.add(c.refusal(batchGetSecretValue, "")) {
			c.logger.LogAttrs(ctx, slog.LevelInfo, "secrets are read one by one, since they cannot be read as a batch",
				slog.String(logkey.Region, c.region.Name), slog.String(logkey.Error, failure.Error()))
		}
		return
	}
	if !failure.settles() {
		return
	}
	for _, ref := range refs {
		if _, ok := found[ref]; !ok {
			found[ref] = Answer{Err: failure.about(ref)}
		}
	}
}

// itemFailed is for one secret of a batch. Where another attempt may help, the
// secret is left to be asked for alone.
func (c *caller) itemFailed(item types.APIErrorType, refs []Ref, found map[Ref]Answer) {
	id := aws.ToString(item.SecretId)
	ref, ok := askedFor(refs, id, id)
	if !ok {
		return
	}
	e := &Error{
		Service: params.SecretsManager, Region: c.region.Name, Operation: getSecretValue, Object: ref.ID,
		Code: aws.ToString(item.ErrorCode), Message: c.clean(aws.ToString(item.Message)),
	}
	e.Kind = kindOf(e.Code, e.Message)
	switch {
	case e.Kind != NotFound && e.Kind != Denied && e.Kind != Invalid:
		// It may pass.
	case ref.isARN(), ref.Label != "" && e.Kind == Denied:
		// GetSecretValue may be allowed what a batch is not: to read a secret of
		// another account, which a batch does not reach, and one whose policy has a
		// condition on the stage, which a batch cannot name.
		c.refusals.add(c.refusal(batchGetSecretValue, ref.ID))
	default:
		found[ref] = Answer{Err: e}
	}
}

// askedFor returns the ref that asked for the secret of an ARN and a name. Of an
// error both are whatever it carries. No two refs of a batch can: their ids are all
// names, or all ARNs.
func askedFor(refs []Ref, arn, name string) (Ref, bool) {
	i := slices.IndexFunc(refs, func(ref Ref) bool {
		if ref.ID == arn || ref.ID == name {
			return true
		}
		if ref.isARN() {
			return completes(arn, ref.ID)
		}
		return completes(resource(arn), ref.ID)
	})
	if i < 0 {
		return Ref{}, false
	}
	return refs[i], true
}

// completes reports whether full is partial with the suffix of an ARN.
func completes(full, partial string) bool {
	return len(full) == len(partial)+suffixLength && strings.HasPrefix(full, partial+"-")
}

// resource returns the part of a secret's ARN that names it, or "" of a name.
func resource(arn string) string {
	parts := strings.SplitN(arn, ":", 7)
	if len(parts) < 7 {
		return ""
	}
	return parts[6]
}

// describeSecret tells the versions of one secret that are in the stages that refs
// ask for.
func (c *caller) describeSecret(ctx context.Context, refs []Ref) (map[Ref]string, bool) {
	id := refs[0].ID
	a := newAttempts(ctx)
	out, err := c.clients.secrets.DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: &id}, c.forSecrets(a))
	if err != nil {
		failure := c.failed(operation{params.SecretsManager, describeSecret, id}, a, err)
		if failure.Kind == NotFound {
			return noVersions(refs), true
		}
		if failure.Kind == Denied && c.refusals.add(c.refusal(describeSecret, id)) {
			c.logger.LogAttrs(ctx, slog.LevelDebug, "a secret is read to see whether it has changed, since its versions may not be asked for",
				slog.String(logkey.Region, c.region.Name), slog.String(logkey.Error, failure.Error()))
		}
		return nil, false
	}
	if out.DeletedDate != nil {
		return noVersions(refs), true
	}
	versions := make(map[Ref]string, len(refs))
	for _, ref := range refs {
		version, ok := inStage(out.VersionIdsToStages, ref)
		if !ok {
			return nil, false
		}
		versions[ref] = version
	}
	return versions, true
}

// noVersions is for refs of what is not there.
func noVersions(refs []Ref) map[Ref]string {
	versions := make(map[Ref]string, len(refs))
	for _, ref := range refs {
		versions[ref] = ""
	}
	return versions
}

// inStage finds the version that a ref means, which is the one in its stage, if
// there is one. Where the ref names another, what is read cannot be told.
func inStage(stages map[string][]string, ref Ref) (string, bool) {
	stage := ref.Label
	if stage == "" {
		stage = stageCurrent
	}
	for version, of := range stages {
		if slices.Contains(of, stage) {
			return version, ref.Version == "" || ref.Version == version
		}
	}
	return "", true
}

// optional is a member of a request that is left out if it is empty.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
