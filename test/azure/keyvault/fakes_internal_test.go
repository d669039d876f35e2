package keyvault

import (
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

func TestReadBack(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"value":"x","attributes":{"enabled":true,"created":1700000000}}`: "",
		`{"value":"x","strange":1}`:                                        "only a part",
		`{"value":1}`:                                                      "cannot read it",
		`<html>`:                                                           "cannot read it",
	} {
		err := readBack[azsecrets.Secret]([]byte(body))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
}
