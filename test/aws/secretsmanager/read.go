package secretsmanager

import (
	"cmp"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/postern-dev/postern/test/aws/api"
	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/aws/iam"
)

// find returns the secret of a name or ARN, and the resource that policies decide
// on, which is there even if the secret is not.
func (s *Service) find(c api.Call, id string) (*secret, iam.Access) {
	k := key{c.Caller.Account, c.Region, id}
	access := iam.Access{Caller: c.Caller, Resource: s.nameARN(k), Shown: id, Owner: c.Caller.Account}
	found := s.secrets[k]
	if strings.HasPrefix(id, "arn:") {
		access.Resource = id
		found = s.byARN(c.Region, id)
		if parts := strings.SplitN(id, ":", 6); len(parts) == 6 {
			access.Owner = parts[4]
		}
	}
	if found != nil {
		access.Resource, access.Owner, access.Policy = found.arn, found.account, found.policy
		access.Context = map[string]string{"secretsmanager:secretid": found.arn}
		for name, value := range found.tags {
			access.Context["aws:resourcetag/"+name] = value
			access.Context["secretsmanager:resourcetag/"+name] = value
		}
	}
	return found, access
}

// randomSuffix is what the end of a whole ARN looks like.
var randomSuffix = regexp.MustCompile(`-[0-9A-Za-z]{6}$`)

// byARN finds a secret by its whole ARN, or by its ARN without the suffix. A name
// that ends as a suffix does is not found without its own, as AWS warns.
func (s *Service) byARN(region, arn string) *secret {
	for _, candidate := range s.secrets {
		if candidate.region != region {
			continue
		}
		if candidate.arn == arn || s.nameARN(candidate.key) == arn && !randomSuffix.MatchString(arn) {
			return candidate
		}
	}
	return nil
}

func notFound() error {
	return api.BadRequest("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
}

func deleted() error {
	return api.BadRequest("InvalidRequestException", "You can't perform this operation on the secret because it was marked for deletion.")
}

// value reads a version of a secret for a caller.
func (s *Service) value(c api.Call, id, versionID, stage string) (api.Answer, error) {
	found, access := s.find(c, id)
	access.Action = "secretsmanager:GetSecretValue"
	access.Context = maps.Clone(access.Context)
	if access.Context == nil {
		access.Context = map[string]string{}
	}
	if stage != "" || versionID == "" {
		access.Context["secretsmanager:VersionStage"] = cmp.Or(stage, Current)
	}
	if versionID != "" {
		access.Context["secretsmanager:VersionId"] = versionID
	}
	if err := s.cfg.Directory.Authorize(access); err != nil {
		return nil, err
	}
	switch {
	case found == nil:
		return nil, notFound()
	case !found.deleted.IsZero():
		return nil, deleted()
	}
	v, err := found.choose(versionID, stage)
	if err != nil {
		return nil, err
	}
	switch found.kms {
	case control.KMSDenied:
		return nil, api.BadRequest("AccessDeniedException", "Access to KMS is not allowed")
	case control.KMSFailure:
		return nil, api.BadRequest("DecryptionFailure", "Secrets Manager can't decrypt the protected secret text using the provided KMS key.")
	}
	return found.entry(v), nil
}

// choose finds the version of an id, of a stage, or of both.
func (s *secret) choose(versionID, stage string) (*version, error) {
	if versionID == "" {
		stage = cmp.Or(stage, Current)
		if v := s.staged(stage); v != nil {
			return v, nil
		}
		return nil, api.BadRequest("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for staging label: "+stage)
	}
	v := s.version(versionID)
	switch {
	case v == nil:
		return nil, api.BadRequest("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for VersionId: "+versionID)
	case stage != "" && !slices.Contains(v.stages, stage):
		return nil, api.BadRequest("InvalidRequestException", "You provided a VersionStage that is not associated to the provided VersionId.")
	}
	return v, nil
}

// entry is a version as GetSecretValue and BatchGetSecretValue answer it.
func (s *secret) entry(v *version) api.Answer {
	answer := api.Answer{"ARN": s.arn, "Name": s.name, "VersionId": v.id, "CreatedDate": api.Timestamp(v.created)}
	if len(v.stages) != 0 {
		answer["VersionStages"] = v.stages
	}
	if v.text != nil {
		answer["SecretString"] = *v.text
	} else {
		answer["SecretBinary"] = v.binary
	}
	return answer
}

func (s *Service) getSecretValue(c api.Call) (api.Answer, error) {
	var in struct{ SecretID, VersionID, VersionStage string }
	if err := c.Decode(&in); err != nil {
		return nil, err
	}
	return s.value(c, in.SecretID, in.VersionID, in.VersionStage)
}

// maxBatch is the most secrets of one answer of BatchGetSecretValue.
const maxBatch = 20

func (s *Service) batchGetSecretValue(c api.Call) (api.Answer, error) {
	var in struct {
		SecretIDList []string
		Filters      []filter
		MaxResults   int
		NextToken    string
	}
	if err := c.Decode(&in); err != nil {
		return nil, err
	}
	if err := s.allowed(c, "secretsmanager:BatchGetSecretValue"); err != nil {
		return nil, err
	}
	ids := in.SecretIDList
	switch {
	case (len(in.SecretIDList) == 0) == (len(in.Filters) == 0):
		return nil, api.BadRequest("InvalidParameterException", "Either 'SecretIdList' or 'Filters' must be provided, but not both.")
	case len(in.SecretIDList) != 0 && in.MaxResults != 0:
		return nil, api.BadRequest("InvalidParameterException", "MaxResults can only be used with Filters.")
	case len(in.Filters) != 0:
		if err := s.allowed(c, "secretsmanager:ListSecrets"); err != nil {
			return nil, err
		}
		for _, found := range s.list(c, in.Filters, false) {
			ids = append(ids, found.arn)
		}
	}
	page, next, err := s.page(ids, in.NextToken, cmp.Or(in.MaxResults, maxBatch))
	if err != nil {
		return nil, err
	}
	values, failed := []api.Answer{}, []api.Answer{}
	for _, id := range page {
		value, err := s.batched(c, id)
		if err == nil {
			values = append(values, value)
			continue
		}
		var e *api.Error
		if !errors.As(err, &e) {
			e = api.FromError(err)
		}
		failed = append(failed, api.Answer{"SecretId": id, "ErrorCode": e.Code, "Message": e.Message})
	}
	return withNext(api.Answer{"SecretValues": values, "Errors": failed}, next), nil
}

// batched reads one secret of a batch.
func (s *Service) batched(c api.Call, id string) (api.Answer, error) {
	if e := c.Failing(id); e != nil {
		return nil, e
	}
	return s.value(c, id, "", "")
}

// allowed checks an action that knows no resource.
func (s *Service) allowed(c api.Call, action string) error {
	return s.cfg.Directory.Authorize(iam.Access{Caller: c.Caller, Action: action, Resource: "*"})
}

func (s *Service) describeSecret(c api.Call) (api.Answer, error) {
	var in struct{ SecretID string }
	if err := c.Decode(&in); err != nil {
		return nil, err
	}
	found, access := s.find(c, in.SecretID)
	access.Action = "secretsmanager:DescribeSecret"
	if err := s.cfg.Directory.Authorize(access); err != nil {
		return nil, err
	}
	if found == nil {
		return nil, notFound()
	}
	answer := found.describe("VersionIdsToStages")
	maps.Copy(answer, found.details)
	if len(found.replicas) != 0 {
		var status []api.Answer
		for _, region := range found.replicas {
			status = append(status, api.Answer{"Region": region, "KmsKeyId": "alias/aws/secretsmanager", "Status": "InSync"})
		}
		answer["ReplicationStatus"] = status
	}
	return answer, nil
}

// describe is what DescribeSecret and ListSecrets say. Versions without a stage
// are not listed.
func (s *secret) describe(versions string) api.Answer {
	stages, tags := map[string][]string{}, []api.Answer{}
	for _, v := range s.versions {
		if len(v.stages) != 0 {
			stages[v.id] = v.stages
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.tags)) {
		tags = append(tags, api.Answer{"Key": name, "Value": s.tags[name]})
	}
	answer := api.Answer{
		"ARN": s.arn, "Name": s.name, versions: stages, "Tags": tags,
		"CreatedDate": api.Timestamp(s.created), "LastChangedDate": api.Timestamp(s.changed),
	}
	for name, value := range map[string]string{"Description": s.description, "KmsKeyId": s.kmsKeyID, "PrimaryRegion": s.primary} {
		if value != "" {
			answer[name] = value
		}
	}
	if !s.deleted.IsZero() {
		answer["DeletedDate"] = api.Timestamp(s.deleted)
	}
	return answer
}
