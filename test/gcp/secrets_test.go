package gcp_test

import (
	"errors"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/test/gcp"
	"github.com/postern-dev/postern/test/gcp/control"
)

const (
	db     = "projects/shop/secrets/db"
	dbName = "projects/" + number + "/secrets/db"
	westDB = "projects/shop/locations/europe-west1/secrets/db"
)

func access(t *testing.T, c *secretmanager.Client, name string) (*secretmanagerpb.AccessSecretVersionResponse, error) {
	t.Helper()
	return c.AccessSecretVersion(t.Context(), &secretmanagerpb.AccessSecretVersionRequest{Name: name})
}

func TestAccessFollowsVersions(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{
		secret(db, "one"), secret(db, "two"), secret(db, "three"),
		{Name: db, Aliases: map[string]int64{"stable": 2}},
	}})
	c := d.secrets(t)
	for version, want := range map[string][2]string{
		"latest": {"3", "three"}, "1": {"1", "one"}, "2": {"2", "two"}, "stable": {"2", "two"},
	} {
		for _, project := range []string{"shop", number} {
			got, err := access(t, c, "projects/"+project+"/secrets/db/versions/"+version)
			if err != nil {
				t.Fatal(err)
			}
			data := got.GetPayload().GetData()
			if got.GetName() != dbName+"/versions/"+want[0] || string(data) != want[1] {
				t.Errorf("%s: %s holds %q", version, got.GetName(), data)
			}
			if sum := int64(crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))); got.GetPayload().GetDataCrc32C() != sum {
				t.Errorf("%s: checksum %d, want %d", version, got.GetPayload().GetDataCrc32C(), sum)
			}
		}
	}
}

// The latest version is the one that was made last, whatever its state.
func TestStatesOfVersions(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{
		secret(db, "one"), secret(db, "two"), {Name: db, State: control.Disabled}, {Name: "projects/shop/secrets/empty", Labels: map[string]string{"a": "b"}},
	}})
	c := d.secrets(t)
	_, err := access(t, c, db+"/versions/latest")
	wantStatus(t, err, codes.FailedPrecondition, "", "Secret Version ["+dbName+"/versions/2] is in DISABLED state.")
	if _, err := access(t, c, db+"/versions/1"); err != nil {
		t.Error(err)
	}
	d.apply(t, control.Document{Secrets: []control.Secret{{Name: db, State: control.Enabled}, {Name: db, Version: 1, State: control.Destroyed}}})
	if got, err := access(t, c, db+"/versions/latest"); err != nil || string(got.GetPayload().GetData()) != "two" {
		t.Errorf("%v, %v", got, err)
	}
	_, err = access(t, c, db+"/versions/1")
	wantStatus(t, err, codes.FailedPrecondition, "", "is in DESTROYED state.")
	for name, want := range map[string]string{
		db + "/versions/3":                           "Secret Version [" + dbName + "/versions/3] not found.",
		db + "/versions/0":                           "not found",
		db + "/versions/none":                        "not found",
		"projects/shop/secrets/none/versions/1":      "Secret [projects/" + number + "/secrets/none] not found or has no versions.",
		"projects/shop/secrets/empty/versions/1":     "secrets/empty] not found or has no versions.",
		"projects/shop/secrets/empty/versions/":      "does not match the expected format [projects/*/secrets/*/versions/*]",
		"projects/shop/secrets/db":                   "does not match the expected format",
		westDB + "/versions/1":                       "does not match the expected format",
		"projects/shop/secrets/db/versions/1/x":      "does not match the expected format",
		"projects/shop/parameters/db/versions/1":     "does not match the expected format",
		"projects/shop/secrets/d b/versions/1":       "does not match the expected format",
		"projects/shop/locations/a/secrets/versions": "does not match the expected format",
	} {
		code := codes.NotFound
		if strings.Contains(want, "format") {
			code = codes.InvalidArgument
		}
		_, err := access(t, c, name)
		wantStatus(t, err, code, "", want)
	}
	if err := d.DeleteSecret(t.Context(), db); err != nil {
		t.Error(err)
	}
	_, err = access(t, c, db+"/versions/2")
	wantStatus(t, err, codes.NotFound, "", "not found or has no versions")
}

func TestRegionalSecretsAreAtTheirEndpoint(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret(westDB, "west"), secret(db, "global")}})
	as := d.given(t, control.TokenRequest{Principal: app})
	west, other := d.secretsAt(t, westHost, as), d.secretsAt(t, "secretmanager.us-east1.rep.googleapis.com", as)
	got, err := access(t, west, westDB+"/versions/latest")
	if err != nil || string(got.GetPayload().GetData()) != "west" || got.GetName() != "projects/"+number+"/locations/europe-west1/secrets/db/versions/1" {
		t.Errorf("%v, %v", got, err)
	}
	for _, c := range []*secretmanager.Client{d.secrets(t), other} {
		_, err = access(t, c, westDB+"/versions/latest")
		wantStatus(t, err, codes.InvalidArgument, "", "does not match")
	}
	_, err = access(t, west, db+"/versions/latest")
	wantStatus(t, err, codes.InvalidArgument, "", "[projects/*/locations/*/secrets/*/versions/*]")
	it := west.ListSecrets(t.Context(), &secretmanagerpb.ListSecretsRequest{Parent: "projects/shop/locations/europe-west1"})
	if one, err := it.Next(); err != nil || !strings.HasSuffix(one.GetName(), "/locations/europe-west1/secrets/db") {
		t.Errorf("%v, %v", one, err)
	}
	if _, err := it.Next(); !errors.Is(err, iterator.Done) {
		t.Errorf("%v", err)
	}
}

func TestDescriptions(t *testing.T) {
	t.Parallel()
	made := time.Unix(1_800_000_000, 0).UTC()
	d := start(t, gcp.Config{Now: func() time.Time { return made }})
	d.apply(t, control.Document{Secrets: []control.Secret{
		secret(db, "x"), secret(db, "y"), {Name: db, Version: 1, State: control.Destroyed, Labels: map[string]string{"app": "web"}, Aliases: map[string]int64{"a": 1}},
	}})
	c := d.secrets(t)
	etags := map[string]bool{}
	for version, state := range map[string]secretmanagerpb.SecretVersion_State{
		"1": secretmanagerpb.SecretVersion_DESTROYED, "latest": secretmanagerpb.SecretVersion_ENABLED,
	} {
		got, err := c.GetSecretVersion(t.Context(), &secretmanagerpb.GetSecretVersionRequest{Name: db + "/versions/" + version})
		if err != nil {
			t.Fatal(err)
		}
		if got.GetState() != state || !got.GetCreateTime().AsTime().Equal(made) || (got.GetDestroyTime() != nil) != (version == "1") {
			t.Errorf("%s: %v", version, got)
		}
		if version == "latest" && got.GetName() != dbName+"/versions/2" {
			t.Errorf("name %s", got.GetName())
		}
		etags[got.GetEtag()] = true
	}
	got, err := c.GetSecret(t.Context(), &secretmanagerpb.GetSecretRequest{Name: db})
	if err != nil || got.GetName() != dbName || got.GetLabels()["app"] != "web" || got.GetVersionAliases()["a"] != 1 || got.GetReplication().GetAutomatic() == nil {
		t.Errorf("%v, %v", got, err)
	}
	etags[got.GetEtag()] = true
	if len(etags) != 3 || etags[""] {
		t.Errorf("etags %v", etags)
	}
	_, err = c.GetSecret(t.Context(), &secretmanagerpb.GetSecretRequest{Name: "projects/shop/secrets/none"})
	wantStatus(t, err, codes.NotFound, "", "not found")
}

func TestList(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	document := control.Document{PageSize: ptr(2)}
	for name, labels := range map[string]map[string]string{
		"web-a": {"app": "web", "tier": "1"}, "web-b": {"app": "web", "tier": "2"}, "web-c": {"app": "web"}, "api": {"app": "api"}, "none": nil,
	} {
		s := secret("projects/shop/secrets/"+name, "x")
		s.Labels = labels
		document.Secrets = append(document.Secrets, s, secret("projects/other/secrets/"+name, "x"), secret("projects/shop/locations/europe-west1/secrets/"+name, "x"))
	}
	d.apply(t, document)
	c := d.secrets(t)
	list := func(filter string) (names []string, err error) {
		it := c.ListSecrets(t.Context(), &secretmanagerpb.ListSecretsRequest{Parent: "projects/shop", Filter: filter})
		for {
			one, err := it.Next()
			if errors.Is(err, iterator.Done) {
				return names, nil
			}
			if err != nil {
				return nil, err
			}
			names = append(names, strings.TrimPrefix(one.GetName(), "projects/"+number+"/secrets/"))
		}
	}
	for filter, want := range map[string][]string{
		"":                               {"api", "none", "web-a", "web-b", "web-c"},
		"labels.app=web":                 {"web-a", "web-b", "web-c"},
		"labels.app=we":                  nil,
		"labels.app:we":                  {"web-a", "web-b", "web-c"},
		"labels.app=web labels.tier=2":   {"web-b"},
		"labels.app=web AND name:web-c":  {"web-c"},
		`labels.tier:* labels.app="web"`: {"web-a", "web-b"},
	} {
		got, err := list(filter)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", filter, err, diff)
		}
	}
	for _, filter := range []string{"labels.app", "created>2", "name=a"} {
		_, err := list(filter)
		wantStatus(t, err, codes.InvalidArgument, "", "filter")
	}
	calls, err := d.Calls(t.Context())
	if err != nil || len(calls) != 2 || calls[0].Count != 11 || calls[1].Code != "INVALID_ARGUMENT" {
		t.Errorf("%v: calls %+v: want 11 pages of at most two", err, calls)
	}
}

func TestPagesAreOfOneList(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret(db, "x"), secret(db+"2", "x")}})
	c := d.secrets(t)
	page := func(r *secretmanagerpb.ListSecretsRequest) (*secretmanagerpb.ListSecretsResponse, error) {
		it := c.ListSecrets(t.Context(), r)
		_, err := it.Next()
		answer, _ := it.Response.(*secretmanagerpb.ListSecretsResponse)
		return answer, err
	}
	first, err := page(&secretmanagerpb.ListSecretsRequest{Parent: "projects/shop", PageSize: 1})
	if err != nil || first.GetTotalSize() != 2 || first.GetNextPageToken() == "" || len(first.GetSecrets()) != 1 {
		t.Fatalf("%v, %v", first, err)
	}
	for name, r := range map[string]*secretmanagerpb.ListSecretsRequest{
		"other filter": {Parent: "projects/shop", PageToken: first.GetNextPageToken(), Filter: "name:d"},
		"other parent": {Parent: "projects/" + number, PageToken: first.GetNextPageToken()},
		"no token":     {Parent: "projects/shop", PageToken: "%"},
		"large page":   {Parent: "projects/shop", PageSize: 25_001},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := page(r)
			wantStatus(t, err, codes.InvalidArgument, "", "invalid argument")
		})
	}
	_, err = page(&secretmanagerpb.ListSecretsRequest{Parent: "projects/shop/locations/europe-west1"})
	wantStatus(t, err, codes.InvalidArgument, "", "parent")
	_, err = page(&secretmanagerpb.ListSecretsRequest{Parent: "projects/other"})
	wantStatus(t, err, codes.PermissionDenied, "IAM_PERMISSION_DENIED", "Permission 'secretmanager.secrets.list' denied for resource 'projects/other' (or it may not exist).")
}

// Who may do what is told by bindings on what is asked for, or on what it is in.
func TestPermissions(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret(db, "x"), secret(db+"2", "x")}})
	as := d.given(t, control.TokenRequest{Principal: onpremUser})
	c := d.secretsAt(t, globalHost, as)
	denied := func(name string) {
		t.Helper()
		_, err := access(t, c, name)
		wantStatus(t, err, codes.PermissionDenied, "IAM_PERMISSION_DENIED", "Permission 'secretmanager.versions.access' denied for resource '"+name+"' (or it may not exist).")
	}
	allowed := func(name string) {
		t.Helper()
		if _, err := access(t, c, name); err != nil {
			t.Error(err)
		}
	}
	denied(db + "/versions/1")
	denied("projects/shop/secrets/none/versions/1")
	d.bind(t, dbName, accessor, onpremUser)
	allowed(db + "/versions/1")
	denied(db + "2/versions/1")
	_, err := c.GetSecretVersion(t.Context(), &secretmanagerpb.GetSecretVersionRequest{Name: db + "/versions/1"})
	wantStatus(t, err, codes.PermissionDenied, "IAM_PERMISSION_DENIED", "secretmanager.versions.get")
	d.bind(t, db, accessor, "serviceAccount:"+app)
	denied(db + "/versions/1")
	d.bind(t, db, accessor)
	d.bind(t, "projects/shop", accessor, "allAuthenticatedUsers")
	allowed(db + "2/versions/1")
	d.apply(t, control.Document{Bindings: []control.Binding{{Resource: "projects/shop", Role: "projects/shop/roles/describer", Permissions: []string{"secretmanager.versions.get"}, Members: []string{onpremUser}}}})
	if _, err := c.GetSecretVersion(t.Context(), &secretmanagerpb.GetSecretVersionRequest{Name: db + "/versions/1"}); err != nil {
		t.Error(err)
	}
}

func TestAccessTokens(t *testing.T) {
	t.Parallel()
	d := start(t, gcp.Config{})
	d.apply(t, control.Document{Secrets: []control.Secret{secret(db, "x")}})
	revoked := d.given(t, control.TokenRequest{Principal: app})
	if err := d.Revoke(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		as     bearer
		code   codes.Code
		reason string
	}{
		"good":        {d.given(t, control.TokenRequest{Principal: app}), codes.OK, ""},
		"none":        {"", codes.Unauthenticated, "CREDENTIALS_MISSING"},
		"nonsense":    {"ya29.nonsense", codes.Unauthenticated, "ACCESS_TOKEN_TYPE_UNSUPPORTED"},
		"expired":     {d.given(t, control.TokenRequest{Principal: app, Lifetime: control.Duration(-time.Second)}), codes.Unauthenticated, "ACCESS_TOKEN_EXPIRED"},
		"revoked":     {revoked, codes.Unauthenticated, "ACCESS_TOKEN_EXPIRED"},
		"other scope": {d.given(t, control.TokenRequest{Principal: app, Scopes: []string{"openid"}}), codes.PermissionDenied, "ACCESS_TOKEN_SCOPE_INSUFFICIENT"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := access(t, d.secretsAt(t, globalHost, test.as), db+"/versions/1")
			wantStatus(t, err, test.code, test.reason, "")
		})
	}
}
