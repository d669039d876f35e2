package params

import (
	"errors"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

// FuzzParse checks that nothing makes a panic, and that what is accepted can be
// fetched from the class's vault alone, and mounted.
func FuzzParse(f *testing.F) {
	f.Add("kv1", tenant, "", "", one)
	f.Add("kv1", "adfs", "AzureStackCloud", "x", "array:\n  - |\n    objectName: a\n    objectType: cert\n    objectVersionHistory: 3\n  - {objectName: b, objectType: key, objectAlias: a/7}")
	f.Add("KV-1", "contoso.com", "AZURECHINACLOUD", "id", "- {objectType: secret, namePattern: a*, tags: {b: c}, limit: 7, objectAlias: d/*}\n- ~\n- 'objectName: x'")
	f.Add("a.b", "..", "x", "?", "x: &a [1]\narray: [*a, {<<: *a, objectFormat: pfx, filePermission: 0644, objectEncoding: hex}]")
	f.Fuzz(func(t *testing.T, vault, tenant, cloud, client, objects string) {
		spec, err := Parse(sdk.Parameters{
			KeyvaultName: vault, TenantID: tenant, CloudName: cloud, ClientID: client, Objects: objects,
		}, Defaults{})
		if err != nil {
			if e, ok := errors.AsType[*sdk.Error](err); !ok || len(e.Fields) == 0 || spec != nil {
				t.Fatalf("error of type %T, with %+v", err, spec)
			}
			return
		}
		checkURLs(t, spec)
		if len(spec.Objects) == 0 {
			t.Fatal("accepted no objects")
		}
		var paths []string
		for i, o := range spec.Objects {
			if o.Index != i || o.Title() == "" || o.Mode > 0o777 || o.History < 0 || o.History > maxHistory {
				t.Fatalf("accepted %+v", o)
			}
			switch {
			case o.Select != nil:
				checkSelect(t, o)
			case o.History > 1:
				for i := range o.History {
					paths = append(paths, o.File()+"/"+strconv.Itoa(i))
				}
			default:
				paths = append(paths, o.File())
			}
		}
		if i, problem := sdk.CheckPaths(paths); problem != "" {
			t.Fatalf("accepted file %q: %s", paths[i], problem)
		}
	})
}

// checkURLs checks that names and versions become parts of URLs and no more.
func checkURLs(t *testing.T, spec *Spec) {
	t.Helper()
	u, err := url.Parse(spec.VaultURL)
	if err != nil || u.Scheme != "https" || u.Host != spec.VaultName+"."+spec.Cloud.VaultDNSSuffix || strings.Contains(spec.VaultName, ".") || u.User != nil || u.Path != "/" {
		t.Fatalf("vault %q: %v", spec.VaultURL, err)
	}
	part := regexp.MustCompile(`^[0-9A-Za-z]([0-9A-Za-z.-]*[0-9A-Za-z])?$`)
	if !part.MatchString(spec.TenantID) || strings.Contains(spec.TenantID, "..") {
		t.Fatalf("tenant %q", spec.TenantID)
	}
	for _, o := range spec.Objects {
		if o.Select == nil && !regexp.MustCompile(`^[0-9A-Za-z-]+$`).MatchString(o.Name) || !regexp.MustCompile(`^[0-9A-Fa-f]*$`).MatchString(o.Version) {
			t.Fatalf("accepted %+v", o)
		}
	}
}

func checkSelect(t *testing.T, o Object) {
	t.Helper()
	s := o.Select
	if o.File() != "" || o.Version != "" || o.History != 0 || s.Limit < 1 || s.Limit > maxLimit || strings.Count(s.Pattern, "*") != 1 ||
		s.FilePattern != "" && strings.Count(s.FilePattern, "*") != 1 {
		t.Fatalf("accepted %+v", o)
	}
}
