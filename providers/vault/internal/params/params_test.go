package params

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

func valid() sdk.Parameters {
	return sdk.Parameters{"roleName": "app", "objects": "- {objectName: o, secretPath: secret/data/app}"}
}

func defaults() Defaults {
	return Defaults{
		Endpoint: store.Endpoint{
			Address: "https://default:8200", Namespace: "team",
			TLS: store.TLS{CACert: "/default.pem", ServerName: "default"},
		},
		AuthMount: "kubernetes",
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	object := Object{Name: "o", Request: store.Request{Method: "GET", Path: "v1/secret/data/app", Query: url.Values{}}, Format: Envelope, Encoding: UTF8}
	base := func(change func(*Spec)) *Spec {
		s := &Spec{Endpoint: defaults().Endpoint, AuthMount: "kubernetes", Role: "app", Audience: "vault", Objects: []Object{object}}
		change(s)
		return s
	}
	tests := map[string]struct {
		set  sdk.Parameters
		want *Spec
	}{
		"defaults":     {nil, base(func(*Spec) {})},
		"address":      {sdk.Parameters{"vaultAddress": "http://v:1/"}, base(func(s *Spec) { s.Endpoint.Address = "http://v:1" })},
		"bao address":  {sdk.Parameters{"baoAddress": "http://v:1"}, base(func(s *Spec) { s.Endpoint.Address = "http://v:1" })},
		"both alike":   {sdk.Parameters{"baoAddress": "http://v:1", "vaultAddress": "http://v:1"}, base(func(s *Spec) { s.Endpoint.Address = "http://v:1" })},
		"namespace":    {sdk.Parameters{"vaultNamespace": "n"}, base(func(s *Spec) { s.Endpoint.Namespace = "n" })},
		"skip verify":  {sdk.Parameters{"vaultSkipTLSVerify": "1"}, base(func(s *Spec) { s.Endpoint.TLS.SkipVerify = true })},
		"CA file":      {sdk.Parameters{"baoCACertPath": "/a.pem"}, base(func(s *Spec) { s.Endpoint.TLS.CACert = "/a.pem" })},
		"CA directory": {sdk.Parameters{"vaultCADirectory": "/a"}, base(func(s *Spec) { s.Endpoint.TLS.CACert, s.Endpoint.TLS.CADirectory = "", "/a" })},
		"server name":  {sdk.Parameters{"vaultTLSServerName": "n"}, base(func(s *Spec) { s.Endpoint.TLS.ServerName = "n" })},
		"client certificate": {
			sdk.Parameters{"vaultTLSClientCertPath": "/c", "vaultTLSClientKeyPath": "/k"},
			base(func(s *Spec) { s.Endpoint.TLS.ClientCert, s.Endpoint.TLS.ClientKey = "/c", "/k" }),
		},
		"auth mount":       {sdk.Parameters{"vaultAuthMountPath": "/team/jwt/"}, base(func(s *Spec) { s.AuthMount = "team/jwt" })},
		"kubernetes mount": {sdk.Parameters{"vaultKubernetesMountPath": "k"}, base(func(s *Spec) { s.AuthMount = "k" })},
		"audience":         {sdk.Parameters{"audience": "a"}, base(func(s *Spec) { s.Audience = "a" })},
		"per pod":          {sdk.Parameters{"vaultSessionPerPod": "true"}, base(func(s *Spec) { s.PerPod = true })},
		"unknown": {
			sdk.Parameters{"vaultCAPem": "x", "array": "x", "objects": "- {objectName: o, secretPath: secret/data/app, objectPath: x, objectVersion: 3}"},
			base(func(*Spec) {}),
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := valid()
			for k, v := range tt.set {
				p[k] = v
			}
			got, err := Parse(p, defaults())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseObjects(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		object string
		want   func(*Object)
	}{
		"leading slash": {"secretPath: /secret/data/app", func(*Object) {}},
		"v1":            {"secretPath: v1/secret/data/app", func(*Object) {}},
		"slash and v1":  {"secretPath: /v1/secret/data/app", func(*Object) {}},
		"query": {`secretPath: "secret/data/app?version=3&x=a%20b"`, func(o *Object) {
			o.Request.Query = url.Values{"version": {"3"}, "x": {"a b"}}
		}},
		"key":          {"secretPath: secret/data/app, secretKey: k", func(o *Object) { o.Key = "k" }},
		"octal mode":   {"secretPath: secret/data/app, filePermission: 0640", func(o *Object) { o.Mode = 0o640 }},
		"decimal mode": {"secretPath: secret/data/app, filePermission: 416", func(o *Object) { o.Mode = 0o640 }},
		"quoted mode":  {`secretPath: secret/data/app, filePermission: "0640"`, func(o *Object) { o.Mode = 0o640 }},
		"base64":       {"secretPath: secret/data/app, encoding: Base64", func(o *Object) { o.Encoding = Base64 }},
		"utf-8":        {"secretPath: secret/data/app, encoding: UTF-8", func(*Object) {}},
		"data only":    {"secretPath: secret/data/app, responseFormat: data", func(o *Object) { o.Format = Data }},
		"method": {"secretPath: secret/data/app, method: put, secretArgs: {b: 12345678901234567890, a: [x, true]}", func(o *Object) {
			o.Request.Method, o.Request.Body = "PUT", []byte(`{"a":["x",true],"b":12345678901234567890}`)
		}},
		"no arguments": {"secretPath: secret/data/app, secretArgs: null", func(*Object) {}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := valid()
			p["objects"] = "- {objectName: o, " + tt.object + "}"
			got, err := Parse(p, defaults())
			if err != nil {
				t.Fatal(err)
			}
			want := Object{Name: "o", Request: store.Request{Method: "GET", Path: "v1/secret/data/app", Query: url.Values{}}, Format: Envelope, Encoding: UTF8}
			tt.want(&want)
			if diff := cmp.Diff([]Object{want}, got.Objects); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseViolations(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		set   sdk.Parameters
		field string
		text  string
	}{
		"no role":          {sdk.Parameters{"roleName": ""}, "roleName", "missing 'roleName' in SecretProviderClass definition"},
		"no objects":       {sdk.Parameters{"objects": ""}, "objects", "no secrets configured - the provider will not read any secret material"},
		"empty objects":    {sdk.Parameters{"objects": "[]"}, "objects", "no secrets configured"},
		"bad objects":      {sdk.Parameters{"objects": "- {"}, "objects", "is not valid YAML"},
		"map of objects":   {sdk.Parameters{"objects": "a: b"}, "objects", "where a list is wanted"},
		"bool":             {sdk.Parameters{"vaultSkipTLSVerify": "yes"}, "vaultSkipTLSVerify", `must be true or false, not "yes"`},
		"bao bool":         {sdk.Parameters{"baoSkipTLSVerify": "yes"}, "baoSkipTLSVerify", "must be true or false"},
		"both mounts":      {sdk.Parameters{"vaultAuthMountPath": "a", "vaultKubernetesMountPath": "a"}, "vaultAuthMountPath", "cannot set both"},
		"both spellings":   {sdk.Parameters{"vaultNamespace": "a", "baoNamespace": "b"}, "vaultNamespace", "cannot set both vaultNamespace and baoNamespace to different values"},
		"half a pair":      {sdk.Parameters{"vaultTLSClientKeyPath": "/k"}, "vaultTLSClientCertPath", "both client cert and client key must be provided"},
		"unix address":     {sdk.Parameters{"vaultAddress": "unix:///run/x.sock"}, "vaultAddress", "http:// or https://"},
		"mount with query": {sdk.Parameters{"vaultAuthMountPath": "a?b"}, "vaultAuthMountPath", "is not the path of an auth method"},
		"mount upwards":    {sdk.Parameters{"vaultAuthMountPath": "../sys"}, "vaultAuthMountPath", "is not the path of an auth method"},
		"no name":          {sdk.Parameters{"objects": "- {secretPath: p/a}"}, "objects[0].objectName", "is required"},
		"no path":          {sdk.Parameters{"objects": "- {objectName: a}"}, "objects[0].secretPath", "is required"},
		"path upwards":     {sdk.Parameters{"objects": "- {objectName: a, secretPath: kv/../sys/raw}"}, "objects[0].secretPath", `must not have the element ".."`},
		"duplicates": {
			sdk.Parameters{"objects": "- {objectName: a, secretPath: p/a}\n- {objectName: a, secretPath: p/b}\n- {objectName: b, secretPath: p/c}\n- {objectName: b, secretPath: p/d}"},
			"objects", "must be unique, duplicated: a, b",
		},
		"name upwards": {sdk.Parameters{"objects": "- {objectName: ../a, secretPath: p/a}"}, "objects[0].objectName", `"../a": the path starts with ".."`},
		"name that is a directory": {
			sdk.Parameters{"objects": "- {objectName: a, secretPath: p/a}\n- {objectName: a/b, secretPath: p/b}"},
			"objects[1].objectName", `"a/b": "a" is a file and cannot be a directory too`,
		},
		"encoding": {sdk.Parameters{"objects": "- {objectName: a, secretPath: p/a, encoding: rot13}"}, "objects[0].encoding", `unsupported encoding type "rot13"`},
		"method":   {sdk.Parameters{"objects": "- {objectName: a, secretPath: p/a, method: \"GET /\"}"}, "objects[0].secretPath", "is not an HTTP method"},
		"args":     {sdk.Parameters{"objects": "- {objectName: a, secretPath: p/a, secretArgs: [1]}"}, "objects[0].secretArgs", "must be a map of arguments"},
		"format":   {sdk.Parameters{"objects": "- {objectName: a, secretPath: p/a, responseFormat: x}"}, "objects[0].responseFormat", "use envelope, data or raw"},
		"format and key": {
			sdk.Parameters{"objects": "- {objectName: a, secretPath: p/a, responseFormat: data, secretKey: k}"},
			"objects[0].responseFormat", "has no effect with secretKey",
		},
		"mode": {sdk.Parameters{"objects": "- {objectName: a, secretPath: p/a, filePermission: 01000}"}, "objects", "is not a file mode"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := valid()
			for k, v := range tt.set {
				p[k] = v
			}
			_, err := Parse(p, defaults())
			e, ok := errors.AsType[*sdk.Error](err)
			if !ok || e.Reason != sdk.ReasonInvalidParameters || len(e.Fields) != 1 {
				t.Fatalf("error = %v, want one violation", err)
			}
			if e.Fields[0].Field != tt.field || !strings.Contains(e.Fields[0].Description, tt.text) {
				t.Errorf("violation = %+v, want %s: ...%s...", e.Fields[0], tt.field, tt.text)
			}
		})
	}
}

func TestParseTellsAllViolations(t *testing.T) {
	t.Parallel()
	_, err := Parse(sdk.Parameters{"vaultSkipTLSVerify": "x", "objects": "- {encoding: x}"}, defaults())
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok || len(e.Fields) != 5 {
		t.Errorf("error = %v, want 5 violations: role, bool, name, path, encoding", err)
	}
}

func TestTLSDirs(t *testing.T) {
	t.Parallel()
	d := defaults()
	d.TLSDirs = []string{"/vault/tls", "/etc/ssl"}
	for path, allowed := range map[string]bool{
		"/vault/tls/ca.pem": true, "/etc/ssl/certs": true, "/vault/tls/../token": false,
		"/var/run/secrets/token": false, "/vault/tls2/ca.pem": false, "ca.pem": false,
	} {
		p := valid()
		p["vaultCACertPath"] = path
		if _, err := Parse(p, d); (err == nil) != allowed {
			t.Errorf("%s: %v, want allowed %v", path, err, allowed)
		}
	}
}

// TestReadKey lists what must and what must not share one response.
func TestReadKey(t *testing.T) {
	t.Parallel()
	parse := func(object string) Object {
		p := valid()
		p["objects"] = "- {objectName: o, " + object + "}"
		s, err := Parse(p, defaults())
		if err != nil {
			t.Fatal(err)
		}
		return s.Objects[0]
	}
	base := parse("secretPath: pki/issue/a, method: PUT, secretArgs: {a: 1, b: 2}").ReadKey()
	for object, same := range map[string]bool{
		"secretPath: /v1/pki/issue/a, method: put, secretArgs: {b: 2, a: 1}, secretKey: x, filePermission: 0600": true,
		"secretPath: pki/issue/a, method: POST, secretArgs: {a: 1, b: 2}":                                        false,
		"secretPath: pki/issue/b, method: PUT, secretArgs: {a: 1, b: 2}":                                         false,
		"secretPath: pki/issue/a, method: PUT, secretArgs: {a: 1, b: 3}":                                         false,
		"secretPath: pki/issue/a, method: PUT":                                                                   false,
		`secretPath: "pki/issue/a?x=1", method: PUT, secretArgs: {a: 1, b: 2}`:                                   false,
	} {
		if got := parse(object).ReadKey() == base; got != same {
			t.Errorf("%s: shared is %v, want %v", object, got, same)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("- {objectName: o, secretPath: secret/data/app?version=1, secretKey: k}")
	f.Add("- objectName: a\n  secretPath: /v1/x\n  secretArgs: {a: [1, {b: c}]}\n  method: POST\n  filePermission: 0644")
	f.Add("[[]]")
	f.Fuzz(func(t *testing.T, objects string) {
		p := valid()
		p["objects"] = objects
		spec, err := Parse(p, defaults())
		if err != nil {
			if _, ok := errors.AsType[*sdk.Error](err); !ok {
				t.Fatalf("error of type %T", err)
			}
			return
		}
		seen := make(map[string]bool)
		for _, o := range spec.Objects {
			if o.Name == "" || seen[o.Name] || !strings.HasPrefix(o.Request.Path, "v1/") || strings.Contains(o.Request.Path, "?") {
				t.Fatalf("accepted %+v", o)
			}
			seen[o.Name] = true
		}
	})
}
