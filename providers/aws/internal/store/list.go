package store

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	smtypes "github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/postern-dev/postern/providers/aws/internal/params"
)

const (
	// maxFilters is how many filters one ListSecrets takes.
	maxFilters = 10
	// secretsPage and parametersPage are the largest pages there are.
	secretsPage    = 100
	parametersPage = 50
)

// filterValue is what ListSecrets takes as the value of a filter. An exclamation
// mark in front would negate it.
var filterValue = regexp.MustCompile(`^[a-zA-Z0-9 :_@/+=.\-][a-zA-Z0-9 :_@/+=.\-!]{0,511}$`)

// listSecrets finds secrets. The service compares beginnings of names, keys and
// values, and any key with any value, so what it finds is compared again.
func (c *caller) listSecrets(ctx context.Context, sel *params.Select) ([]Item, *Error) {
	did := operation{params.SecretsManager, listSecrets, ""}
	in := &secretsmanager.ListSecretsInput{Filters: secretFilters(sel), MaxResults: aws.Int32(secretsPage)}
	var items []Item
	for {
		a := newAttempts(ctx)
		out, err := c.clients.secrets.ListSecrets(ctx, in, c.forSecrets(a))
		if err != nil {
			return nil, c.failed(did, a, err)
		}
		for _, secret := range out.SecretList {
			if selects(sel, secret) {
				items = append(items, secretItem(secret))
			}
		}
		done, failure := c.last(did, in.NextToken, out.NextToken)
		if failure != nil {
			return nil, failure
		}
		if done || len(items) > sel.Limit {
			return bounded(items, sel.Limit), nil
		}
		in.NextToken = out.NextToken
	}
}

// secretFilters is what the service can do of a selection.
func secretFilters(sel *params.Select) []smtypes.Filter {
	var filters []smtypes.Filter
	add := func(key smtypes.FilterNameStringType, value string) {
		if len(filters) < maxFilters && filterValue.MatchString(value) {
			filters = append(filters, smtypes.Filter{Key: key, Values: []string{value}})
		}
	}
	add(smtypes.FilterNameStringTypeName, sel.NamePrefix)
	for _, key := range sortedKeys(sel.Tags) {
		add(smtypes.FilterNameStringTypeTagKey, key)
		add(smtypes.FilterNameStringTypeTagValue, sel.Tags[key])
	}
	return filters
}

// selects reports whether a secret has the name and all tags of a selection.
func selects(sel *params.Select, secret smtypes.SecretListEntry) bool {
	if !strings.HasPrefix(aws.ToString(secret.Name), sel.NamePrefix) {
		return false
	}
	has := make(map[string]string, len(secret.Tags))
	for _, tag := range secret.Tags {
		has[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
	}
	for key, value := range sel.Tags {
		if got, ok := has[key]; !ok || got != value {
			return false
		}
	}
	return true
}

func secretItem(secret smtypes.SecretListEntry) Item {
	version, _ := inStage(secret.SecretVersionsToStages, Ref{})
	return Item{ID: aws.ToString(secret.ARN), Name: aws.ToString(secret.Name), Version: version}
}

// listParameters finds parameters. Their tags are not in the answer, but here the
// service compares key and value as wholes.
func (c *caller) listParameters(ctx context.Context, sel *params.Select) ([]Item, *Error) {
	did := operation{params.ParameterStore, describeParameters, ""}
	in := &ssm.DescribeParametersInput{MaxResults: aws.Int32(parametersPage)}
	if sel.NamePrefix != "" {
		in.ParameterFilters = append(in.ParameterFilters, parameterFilter("Name", "BeginsWith", sel.NamePrefix))
	}
	for _, key := range sortedKeys(sel.Tags) {
		if sel.Tags[key] == "" {
			return nil, &Error{
				Kind: Invalid, Service: did.service, Region: c.region.Name, Operation: did.name,
				Message: "Parameter Store cannot be searched for the empty value of tag " + strconv.Quote(key),
			}
		}
		in.ParameterFilters = append(in.ParameterFilters, parameterFilter("tag:"+key, "Equals", sel.Tags[key]))
	}
	var items []Item
	for {
		a := newAttempts(ctx)
		out, err := c.clients.parameters.DescribeParameters(ctx, in, c.forParameters(a))
		if err != nil {
			return nil, c.failed(did, a, err)
		}
		for _, p := range out.Parameters {
			if name := aws.ToString(p.Name); strings.HasPrefix(name, sel.NamePrefix) {
				items = append(items, Item{ID: name, Name: name, Version: strconv.FormatInt(p.Version, 10)})
			}
		}
		done, failure := c.last(did, in.NextToken, out.NextToken)
		if failure != nil {
			return nil, failure
		}
		if done || len(items) > sel.Limit {
			return bounded(items, sel.Limit), nil
		}
		in.NextToken = out.NextToken
	}
}

func parameterFilter(key, option, value string) ssmtypes.ParameterStringFilter {
	return ssmtypes.ParameterStringFilter{Key: &key, Option: &option, Values: []string{value}}
}

// last reports whether there is no further page. One that leads to itself would
// never end.
func (c *caller) last(did operation, from, to *string) (bool, *Error) {
	if aws.ToString(to) == "" {
		return true, nil
	}
	if aws.ToString(from) == aws.ToString(to) {
		return false, &Error{
			Kind: Unavailable, Service: did.service, Region: c.region.Name, Operation: did.name,
			Message: "the list does not end: a page names itself as the next one",
		}
	}
	return false, nil
}

// bounded orders items by name, and drops what is more than one beyond the limit.
func bounded(items []Item, limit int) []Item {
	slices.SortFunc(items, func(a, b Item) int { return cmp.Compare(a.Name, b.Name) })
	return items[:min(len(items), limit+1)]
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
