package file_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/postern-dev/postern/providers/file"
	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/sdk/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// write makes files below a directory, with those above them.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, contents := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(contents), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func request(namespace, objects string) *sdk.Request {
	return &sdk.Request{
		Pod:        sdk.Pod{Namespace: namespace, Name: "pod-in-" + namespace, UID: "11111111-0000-4000-8000-" + namespace},
		Parameters: sdk.Parameters{"objects": objects},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, map[string]string{
		"shop/db/password": "correct horse battery staple", "shop/db/user": "the-shop-database-user",
		"shop/encoded": "Y29ycmVjdCBob3JzZQ==\n", "bank/db/password": "a password of another tenant",
		"shop/large": string(make([]byte, 2000)),
	})
	objects := func(text string) func(*sdk.Request) {
		return func(r *sdk.Request) { r.Parameters["objects"] = text }
	}
	const valid = "- objectName: db/password\n- objectName: db/user\n  objectAlias: user\n" +
		"- objectName: encoded\n  objectEncoding: base64\n"
	providertest.Run(t, providertest.Harness{
		Definition: file.Definition,
		Args:       []string{"--root=" + root, "--max-file-bytes=1000"},
		Valid: providertest.Case{
			Request: func() *sdk.Request { return request("shop", valid) },
			Contents: map[string]string{
				"db/password": "correct horse battery staple", "user": "the-shop-database-user", "encoded": "correct horse",
			},
		},
		Modes: &providertest.Case{
			Request: func() *sdk.Request {
				return request("shop", "- {objectName: db/password, filePermission: \"0440\"}\n- {objectName: db/user, filePermission: 0600}\n")
			},
			Modes: map[string]fs.FileMode{"db/password": 0o440, "db/user": 0o600},
		},
		Pods: []providertest.Case{
			{
				Request:  func() *sdk.Request { return request("shop", "- objectName: db/password") },
				Contents: map[string]string{"db/password": "correct horse battery staple"},
			},
			{
				Request:  func() *sdk.Request { return request("bank", "- objectName: db/password") },
				Contents: map[string]string{"db/password": "a password of another tenant"},
			},
		},
		Mutate: func() error {
			return os.WriteFile(filepath.Join(root, "shop/db/password"), []byte("incorrect donkey battery stapl"), 0o600)
		},
		Errors: []providertest.ErrorCase{
			{
				Name: "missing", Request: objects("- objectName: db/nothing"), Reason: sdk.ReasonObjectNotFound,
				Object: "db/nothing", Message: "there is no such file for this namespace",
			},
			{
				Name: "another namespace's", Request: objects("- objectName: ../bank/db/password"),
				Reason: sdk.ReasonInvalidParameters, Field: "objects[0].objectName", Message: "must be a path below the provider's directory",
			},
			{
				Name: "no namespace directory", Request: func(r *sdk.Request) { r.Pod.Namespace = "empty" },
				Reason: sdk.ReasonObjectNotFound, Message: `namespace "empty" has no directory`,
			},
			{
				Name: "root as a namespace", Request: func(r *sdk.Request) { r.Pod.Namespace = "." },
				Reason: sdk.ReasonAccessDenied, Message: "is no name of a namespace",
			},
			{
				Name: "too large", Request: objects("- objectName: large"), Reason: sdk.ReasonResponseTooLarge, Object: "large",
				Message: "is larger than 1000 bytes",
			},
			{
				Name: "wrong encoding", Request: objects("- {objectName: db/user, objectEncoding: hex}"),
				Reason: sdk.ReasonInvalidParameters, Object: "db/user", Field: "objectEncoding", Message: "is not in the objectEncoding hex",
			},
		},
	})
}
