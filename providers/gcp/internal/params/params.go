// Package params decodes what a SecretProviderClass asks for.
//
// Names, rules and the first words of each problem are those of Google's own
// provider, so that its classes work unchanged and its users find the texts that
// they know. What can never be mounted, or would make a host's name of what is none,
// is refused here, before anything is sent.
package params

import (
	"strconv"
	"strings"
	"unicode"

	"github.com/postern-dev/postern/providers/sdk"
)

// Names of parameters.
const (
	ParameterAuth    = "auth"
	ParameterSecrets = "secrets"
)

// Parameters are those of a class that the provider knows.
func Parameters() []sdk.Parameter {
	return []sdk.Parameter{
		{Name: ParameterSecrets, Description: "YAML list of what to read.", Required: true},
		{Name: ParameterAuth, Description: "Identity to read with: pod-adc, or provider-adc where the operator allows it; " +
			"default the key of nodePublishSecretRef where that is allowed and there is one, else pod-adc."},
	}
}

// Auth says which identity a class asks for.
type Auth string

// The identities, as classes name them.
const (
	// AuthDefault is that of nodePublishSecretRef if there is one, else the pod's.
	AuthDefault Auth = ""
	// PodADC is the pod's own.
	PodADC Auth = "pod-adc"
	// ProviderADC is the provider's.
	ProviderADC Auth = "provider-adc"
)

// Spec is a class, decoded.
type Spec struct {
	Auth Auth
	// Secrets are in the class's order; there is at least one.
	Secrets []Object
}

// Parse decodes parameters. The error is an [*sdk.Error] with all violations, in the
// order in which the class has what they are about.
func Parse(p sdk.Parameters) (*Spec, error) {
	d := sdk.NewDecoder(p)
	spec := &Spec{Auth: auth(d), Secrets: decodeSecrets(d)}
	if err := d.Err(); err != nil {
		return nil, err
	}
	return spec, nil
}

func auth(d *sdk.Decoder) Auth {
	auth := Auth(d.String(ParameterAuth, ""))
	switch auth {
	case AuthDefault, PodADC, ProviderADC:
	default:
		d.Violate(ParameterAuth, `unknown auth configuration: %s: write pod-adc or provider-adc, or leave it out`, quoted(string(auth)))
	}
	return auth
}

// maxShown is how many bytes of what a class says are in a message.
const maxShown = 300

// shown returns a text of the class for a message: cut if it is long, since an anchor
// could put it into each object, and in one line.
func shown(text string) string {
	cut := ""
	if len(text) > maxShown {
		text, cut = strings.ToValidUTF8(text[:maxShown], ""), "..."
	}
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			escaped := strconv.QuoteRune(r)
			b.WriteString(escaped[1 : len(escaped)-1])
		}
	}
	return b.String() + cut
}

func quoted(text string) string { return `"` + shown(text) + `"` }
