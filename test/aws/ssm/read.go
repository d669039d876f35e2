package ssm

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

// nameForm is what a name may look like; a path begins with a slash.
var nameForm = regexp.MustCompile(`^(/[\w.-]+(/[\w.-]+)*|[\w.-]+)$`)

func validName(name string) bool { return nameForm.MatchString(name) }

// reference is one of the names that are asked for.
type reference struct {
	asked    string
	key      key
	selector string
}

// parse reads a name or an ARN, with or without a selector.
func (s *Service) parse(c api.Call, asked string) (reference, error) {
	r := reference{asked: asked, key: key{account: c.Caller.Account, region: c.Region}}
	name := asked
	if parts := strings.SplitN(asked, ":", 6); len(parts) == 6 && parts[0] == "arn" {
		path, ok := strings.CutPrefix(parts[5], "parameter/")
		if !ok || parts[2] != "ssm" {
			return reference{}, api.BadRequest("ValidationException", "Invalid parameter ARN: "+asked)
		}
		r.key.region, r.key.account, name = parts[3], parts[4], path
	}
	r.key.name, r.selector, _ = strings.Cut(name, ":")
	if strings.HasPrefix(asked, "arn:") && strings.Contains(r.key.name, "/") {
		r.key.name = "/" + r.key.name
	}
	if !validName(r.key.name) {
		return reference{}, api.BadRequest("ValidationException", `Parameter name: can't be prefixed with "ssm" (case-insensitive). If formed as a path, it can consist of sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and the following 3 symbols .-_`)
	}
	return r, nil
}

// find finds a parameter. An ARN does not say whether a name without further
// slashes begins with one.
func (s *Service) find(c api.Call, r reference) *parameter {
	if r.key.region != c.Region {
		return nil
	}
	if found := s.parameters[r.key]; found != nil || !strings.HasPrefix(r.asked, "arn:") {
		return found
	}
	r.key.name = "/" + r.key.name
	return s.parameters[r.key]
}

// authorize checks the action on a parameter, there or not.
func (s *Service) authorize(c api.Call, r reference, found *parameter) error {
	arn := s.arn(r.key)
	context := map[string]string{}
	if found != nil {
		for name, value := range found.tags {
			context["aws:resourcetag/"+name], context["ssm:resourcetag/"+name] = value, value
		}
	}
	return s.cfg.Directory.Authorize(iam.Access{
		Caller: c.Caller, Action: "ssm:" + c.Operation, Resource: arn, Shown: arn, Context: context,
	})
}

// answer is a version as it is read.
func (p *parameter) answer(r reference, v *version, decrypt bool) (api.Answer, error) {
	value := v.value
	if v.kind == secureString {
		if decrypt && p.kms == control.KMSDenied {
			return nil, api.BadRequest("AccessDeniedException", "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access. (Service: AWSKMS; Status Code: 400; Error Code: AccessDeniedException)")
		}
		if !decrypt {
			value = v.ciphertext
		}
	}
	answer := api.Answer{
		"Name": p.name, "ARN": p.arn, "Type": v.kind, "Value": value, "Version": v.number,
		"DataType": p.dataType, "LastModifiedDate": api.Timestamp(v.modified),
	}
	if r.selector != "" {
		answer["Selector"] = ":" + r.selector
	}
	return answer, nil
}

func (s *Service) getParameters(c api.Call) (api.Answer, error) {
	var in struct {
		Names          []string
		WithDecryption bool
	}
	if err := c.Decode(&in); err != nil {
		return nil, err
	}
	references := make([]reference, len(in.Names))
	for i, name := range in.Names {
		var err error
		if references[i], err = s.parse(c, name); err != nil {
			return nil, err
		}
		if err := s.authorize(c, references[i], s.find(c, references[i])); err != nil {
			return nil, err
		}
	}
	found, invalid := []api.Answer{}, []string(nil)
	for _, r := range references {
		answer, err := s.read(c, r, in.WithDecryption)
		switch {
		case errors.Is(err, errMissing):
			invalid = append(invalid, r.asked)
		case err != nil:
			return nil, err
		default:
			found = append(found, answer)
		}
	}
	// The order of the answers is not that of the names: nobody may rely on it.
	slices.SortStableFunc(found, func(a, b api.Answer) int {
		return strings.Compare(a["ARN"].(string), b["ARN"].(string))
	})
	answer := api.Answer{"Parameters": found}
	if len(invalid) != 0 {
		answer["InvalidParameters"] = invalid
	}
	return answer, nil
}

// errMissing says that there is no such parameter or version.
var errMissing = errors.New("no such parameter or version")

func (s *Service) read(c api.Call, r reference, decrypt bool) (api.Answer, error) {
	found := s.find(c, r)
	if found == nil {
		return nil, errMissing
	}
	v := found.choose(r.selector)
	if v == nil {
		return nil, errMissing
	}
	return found.answer(r, v, decrypt)
}

func (s *Service) getParameter(c api.Call) (api.Answer, error) {
	var in struct {
		Name           string
		WithDecryption bool
	}
	if err := c.Decode(&in); err != nil {
		return nil, err
	}
	r, err := s.parse(c, in.Name)
	if err != nil {
		return nil, err
	}
	found := s.find(c, r)
	if err := s.authorize(c, r, found); err != nil {
		return nil, err
	}
	answer, err := s.read(c, r, in.WithDecryption)
	switch {
	case errors.Is(err, errMissing) && found == nil:
		return nil, api.BadRequest("ParameterNotFound", "Parameter "+in.Name+" not found.")
	case errors.Is(err, errMissing):
		return nil, api.BadRequest("ParameterVersionNotFound", "Systems Manager could not find version "+r.selector+" of "+found.name+". Verify the version and try again.")
	case err != nil:
		return nil, err
	}
	return api.Answer{"Parameter": answer}, nil
}

// maxDescribe is the most parameters of one answer of DescribeParameters.
const maxDescribe = 50

func (s *Service) describeParameters(c api.Call) (api.Answer, error) {
	var in struct {
		Filters          []filter
		ParameterFilters []filter
		MaxResults       int
		NextToken        string
		Shared           bool
	}
	if err := c.Decode(&in); err != nil {
		return nil, err
	}
	resource := "arn:" + s.cfg.Partition + ":ssm:" + c.Region + ":" + c.Caller.Account + ":*"
	err := s.cfg.Directory.Authorize(iam.Access{Caller: c.Caller, Action: "ssm:DescribeParameters", Resource: resource, Shown: resource})
	if err != nil {
		return nil, err
	}
	for _, f := range in.Filters { // the older form compares the beginnings of names
		f.Option = "BeginsWith"
		in.ParameterFilters = append(in.ParameterFilters, f)
	}
	for _, f := range in.ParameterFilters {
		if err := f.check(); err != nil {
			return nil, err
		}
	}
	page, next, err := s.page(s.all(c, in.Shared), in.NextToken, cmp.Or(in.MaxResults, maxDescribe))
	if err != nil {
		return nil, err
	}
	entries := []api.Answer{}
	for _, p := range page {
		if !slices.ContainsFunc(in.ParameterFilters, func(f filter) bool { return !f.matches(p) }) {
			entries = append(entries, p.describe())
		}
	}
	answer := api.Answer{"Parameters": entries}
	if next != "" {
		answer["NextToken"] = next
	}
	return answer, nil
}

// all returns a region's parameters by name: the caller's account's, or those of
// others, which are shared.
func (s *Service) all(c api.Call, shared bool) []*parameter {
	all := slices.DeleteFunc(slices.Collect(maps.Values(s.parameters)), func(p *parameter) bool {
		return p.region != c.Region || shared == (p.account == c.Caller.Account)
	})
	slices.SortFunc(all, func(a, b *parameter) int { return strings.Compare(a.name, b.name) })
	return all
}

func (p *parameter) describe() api.Answer {
	v := p.latest()
	answer := api.Answer{
		"Name": p.name, "ARN": p.arn, "Type": v.kind, "Version": v.number, "Tier": "Standard", "DataType": p.dataType,
		"LastModifiedDate": api.Timestamp(v.modified), "Policies": []any{},
	}
	if p.description != "" {
		answer["Description"] = p.description
	}
	if v.kind == secureString {
		answer["KeyId"] = p.keyID
	}
	return answer
}
