package secretdata_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/secretdata"
	"github.com/postern-dev/postern/internal/redact"
	"github.com/postern-dev/postern/internal/rpc"
)

func file(path, contents string) secretdata.File {
	return secretdata.File{Path: path, Contents: redact.NewBytes([]byte(contents))}
}

// object is a secretObject named "s". Its data is pairs of file and key.
func object(secretType string, data ...string) *apiv1.SecretObject {
	o := &apiv1.SecretObject{SecretName: "s", Type: secretType}
	for i := 0; i < len(data); i += 2 {
		o.Data = append(o.Data, &apiv1.SecretObjectData{ObjectName: data[i], Key: data[i+1]})
	}
	return o
}

func withRules(o *apiv1.SecretObject, rules ...apiv1.SecretObjectDataFrom) *apiv1.SecretObject {
	for _, rule := range rules {
		o.DataFrom = append(o.DataFrom, &rule)
	}
	return o
}

func revealed(secret secretdata.Secret) map[string]string {
	data := map[string]string{}
	for key, value := range secret.Data {
		data[key] = string(value.Reveal())
	}
	return data
}

func TestBuild(t *testing.T) {
	t.Parallel()
	volume := []secretdata.File{
		file("password", "p"), file("nested/bar", "nested"), file("db/user.txt", "u"), file("db/pass.txt", "w"), file("empty", ""),
	}
	for name, tc := range map[string]struct {
		object *apiv1.SecretObject
		want   map[string]string
	}{
		"file to key":          {object("Opaque", "password", "pw"), map[string]string{"pw": "p"}},
		"nested file":          {object("Opaque", "nested/bar", "bar"), map[string]string{"bar": "nested"}},
		"surrounding spaces":   {object(" Opaque\n", " password ", "\tpw "), map[string]string{"pw": "p"}},
		"one file, two keys":   {object("Opaque", "password", "a", "password", "b"), map[string]string{"a": "p", "b": "p"}},
		"the same entry twice": {object("Opaque", "password", "a", "password", "a"), map[string]string{"a": "p"}},
		"empty file":           {object("Opaque", "empty", "e"), map[string]string{"e": ""}},
		"all files": {
			withRules(object(""), apiv1.SecretObjectDataFrom{}),
			map[string]string{"password": "p", "nested_bar": "nested", "db_user.txt": "u", "db_pass.txt": "w", "empty": ""},
		},
		"pattern": {
			withRules(object(""), apiv1.SecretObjectDataFrom{Files: "db/*.txt"}),
			map[string]string{"db_user.txt": "u", "db_pass.txt": "w"},
		},
		"star does not cross directories": {
			withRules(object(""), apiv1.SecretObjectDataFrom{Files: "*"}),
			map[string]string{"password": "p", "empty": ""},
		},
		"prefix": {
			withRules(object(""), apiv1.SecretObjectDataFrom{Files: "db/*", KeyPrefix: "app."}),
			map[string]string{"app.db_user.txt": "u", "app.db_pass.txt": "w"},
		},
		"rules that overlap": {
			withRules(object(""), apiv1.SecretObjectDataFrom{Files: "db/*"}, apiv1.SecretObjectDataFrom{Files: "db/user.*"}),
			map[string]string{"db_user.txt": "u", "db_pass.txt": "w"},
		},
		"data wins over a rule": {
			withRules(object("", "password", "db_user.txt"), apiv1.SecretObjectDataFrom{Files: "db/*"}),
			map[string]string{"db_user.txt": "p", "db_pass.txt": "w"},
		},
		"type that nobody knows": {object("example.com/own", "password", "x"), map[string]string{"x": "p"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			secret, err := secretdata.Build(tc.object, volume)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, revealed(secret)); diff != "" {
				t.Errorf("data (-want +got):\n%s", diff)
			}
			wantType := strings.TrimSpace(tc.object.Type)
			if wantType == "" {
				wantType = "Opaque"
			}
			if secret.Name != "s" || secret.Type != wantType {
				t.Errorf("made %s of type %s, want s of type %s", secret.Name, secret.Type, wantType)
			}
		})
	}
}

func TestBuild_Types(t *testing.T) {
	t.Parallel()
	volume := []secretdata.File{
		file("x", "y"), file("empty", ""), file("config.json", ` {"auths":{"r":{"auth":"aHVudGVyMg=="}}}`),
		file("list.json", `["hunter2"]`), file("broken.json", `{"auths": hunter2`),
	}
	serviceAccount := func(o *apiv1.SecretObject) *apiv1.SecretObject {
		o.Annotations = map[string]string{"kubernetes.io/service-account.name": "builder"}
		return o
	}
	for name, tc := range map[string]struct {
		object *apiv1.SecretObject
		want   string // "": it is made
	}{
		"docker config":                  {object: object("kubernetes.io/dockerconfigjson", "config.json", ".dockerconfigjson")},
		"docker config, old":             {object: object("kubernetes.io/dockercfg", "config.json", ".dockercfg")},
		"docker config without key":      {object("kubernetes.io/dockerconfigjson", "config.json", "x"), `data has no key ".dockerconfigjson"`},
		"docker config, old without key": {object("kubernetes.io/dockercfg", "config.json", "x"), `data has no key ".dockercfg"`},
		"docker config, broken":          {object("kubernetes.io/dockerconfigjson", "broken.json", ".dockerconfigjson"), `data[0] makes key ".dockerconfigjson" of file "broken.json", which is not a JSON object`},
		"docker config, no object":       {object("kubernetes.io/dockercfg", "list.json", ".dockercfg"), `which is not a JSON object`},
		"user name":                      {object: object("kubernetes.io/basic-auth", "x", "username")},
		"password":                       {object: object("kubernetes.io/basic-auth", "empty", "password")},
		"neither":                        {object("kubernetes.io/basic-auth", "x", "user"), `data has neither key "username" nor "password"`},
		"ssh":                            {object: object("kubernetes.io/ssh-auth", "x", "ssh-privatekey")},
		"ssh without key":                {object("kubernetes.io/ssh-auth", "x", "id_rsa"), `data has no key "ssh-privatekey"`},
		"ssh, empty":                     {object("kubernetes.io/ssh-auth", "empty", "ssh-privatekey"), `of file "empty", which is empty`},
		"bootstrap token":                {object: object("bootstrap.kubernetes.io/token", "x", "token-id")},
		"service account":                {object: serviceAccount(object("kubernetes.io/service-account-token", "x", "token"))},
		"service account unnamed":        {object("kubernetes.io/service-account-token", "x", "token"), `annotations have no "kubernetes.io/service-account.name"`},
		"service account without token":  {serviceAccount(object("kubernetes.io/service-account-token", "x", "extra")), `data has no key "token"`},
		"service account, empty token":   {serviceAccount(object("kubernetes.io/service-account-token", "empty", "token")), `of file "empty", which is empty`},
		"service account with ca.crt":    {serviceAccount(object("kubernetes.io/service-account-token", "x", "token", "x", "ca.crt")), `data[1] makes key "ca.crt"`},
		"tls without keys":               {object("kubernetes.io/tls", "x", "cert"), `data has no key "tls.crt", which type kubernetes.io/tls needs: name the file for it; data has no key "tls.key"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := secretdata.Build(tc.object, volume)
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Build: %v\nwant ... %s ...", err, tc.want)
			}
			if strings.Contains(fmt.Sprint(err), "hunter2") {
				t.Errorf("the error tells contents: %v", err)
			}
		})
	}
}

func TestBuild_Refuses(t *testing.T) {
	t.Parallel()
	volume := []secretdata.File{file("a", "1"), file("b/c", "2"), file("b_c", "3"), file("with space", "4"), file("d", "5"), file("e", "6"), file("f", "7")}
	named := func(name string) *apiv1.SecretObject {
		o := object("", "a", "a")
		o.SecretName = name
		return o
	}
	labelled := func(key, value string) *apiv1.SecretObject {
		o := object("", "a", "a")
		o.Labels = map[string]string{key: value}
		return o
	}
	annotated := func(key, value string) *apiv1.SecretObject {
		o := object("", "a", "a")
		o.Annotations = map[string]string{key: value}
		return o
	}
	for name, tc := range map[string]struct {
		object *apiv1.SecretObject
		field  string // below the secretObject
		want   string
	}{
		"nothing":              {nil, "secretName", "is not set: name the Kubernetes Secret"},
		"no name":              {named(" "), "secretName", "is not set: name the Kubernetes Secret"},
		"bad name":             {named("My_Secret"), "secretName", "is not a name for a Secret: a lowercase RFC 1123 subdomain"},
		"no data":              {object(""), "data", "is empty: name at least one file here"},
		"no file named":        {object("", "", "k"), "data[0].objectName", "is not set: name a file of the volume"},
		"no such file":         {object("", "a", "x", "nope", "k"), "data[1].objectName", `is "nope", and the volume has no such file: it has "a", "b/c", "b_c", "d", "e" and 2 more`},
		"no key":               {object("", "a", ""), "data[0].key", "is not set: name the key of the Secret"},
		"bad key":              {object("", "a", "my key"), "data[0].key", `is "my key", which is not a key: a valid config key`},
		"key of two dots":      {object("", "a", ".."), "data[0].key", `is "..", which is not a key`},
		"two files, one key":   {object("", "a", "k", "d", "k"), "data[1]", `makes key "k" of file "d", and data[0] makes it of file "a"`},
		"two paths, one key":   {withRules(object(""), apiv1.SecretObjectDataFrom{Files: "b*"}, apiv1.SecretObjectDataFrom{Files: "b/*"}), "dataFrom[1]", `makes key "b_c" of file "b/c", and dataFrom[0] makes it of file "b_c"`},
		"rule makes a bad key": {withRules(object(""), apiv1.SecretObjectDataFrom{Files: "w*"}), "dataFrom[0]", `makes key "with space" of file "with space", which is not a key`},
		"prefix makes a bad":   {withRules(object(""), apiv1.SecretObjectDataFrom{Files: "a", KeyPrefix: "x/"}), "dataFrom[0]", `makes key "x/a" of file "a", which is not a key`},
		"rule matches nothing": {withRules(object(""), apiv1.SecretObjectDataFrom{Files: "*.pem"}), "dataFrom[0].files", `is "*.pem", and no file of the volume matches: it has "a"`},
		"bad pattern":          {withRules(object(""), apiv1.SecretObjectDataFrom{Files: "[a"}), "dataFrom[0].files", `is "[a", which is not a pattern`},
		"label's key":          {labelled("a b", "x"), "labels", `key "a b" is not valid`},
		"label's value":        {labelled("a", "x y"), "labels", `value of "a" is not valid`},
		"driver's label":       {labelled("secrets-store.csi.k8s.io/managed", "false"), "labels", `is the driver's own: remove it`},
		"driver's own label":   {labelled("postern.dev/x", "y"), "labels", `is the driver's own: remove it`},
		"annotation's key":     {annotated("a b", "x"), "annotations", `key "a b" is not valid`},
		"driver's annotation":  {annotated("postern.dev/fetched-at", "x"), "annotations", `is the driver's own: remove it`},
		"kubectl's annotation": {annotated("kubectl.kubernetes.io/last-applied-configuration", "{}"), "annotations", `is kubectl's own: remove it`},
		"annotations too long": {annotated("a", strings.Repeat("x", 200<<10)), "annotations", "have 204801 bytes in sum: shorten them to 131072"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := secretdata.Build(tc.object, volume)
			failure, ok := errors.AsType[*rpc.Error](err)
			if !ok || failure.Reason != rpc.ReasonInvalidParameters {
				t.Fatalf("Build: %v (%T), want INVALID_PARAMETERS", err, err)
			}
			secretName := ""
			if tc.object != nil {
				secretName = strings.TrimSpace(tc.object.SecretName)
			}
			field := fmt.Sprintf("spec.secretObjects[%q].%s", secretName, tc.field)
			i := slices.IndexFunc(failure.FieldViolations, func(v rpc.FieldViolation) bool { return v.Field == field })
			if i < 0 || !strings.Contains(failure.FieldViolations[i].Description, tc.want) {
				t.Errorf("violations %+v,\nwant %s ... %s ...", failure.FieldViolations, field, tc.want)
			}
			if want := tc.field + " "; !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Build: %v,\nwant it to say %s ... %s ...", err, tc.field, tc.want)
			}
		})
	}
}

func TestBuild_TellsAllAtOnce(t *testing.T) {
	t.Parallel()
	o := object("kubernetes.io/ssh-auth", "nope", "bad key", "a", "b")
	o.SecretName = "S"
	o.Labels = map[string]string{"postern.dev/x": "y"}
	for range 8 {
		o.Data = append(o.Data, nil)
	}
	_, err := secretdata.Build(o, []secretdata.File{file("a", "1")})
	failure, ok := errors.AsType[*rpc.Error](err)
	if !ok {
		t.Fatal(err)
	}
	fields := map[string]bool{}
	for _, violation := range failure.FieldViolations {
		fields[strings.TrimPrefix(violation.Field, `spec.secretObjects["S"].`)] = true
	}
	for _, want := range []string{"secretName", "labels", "data[0].objectName", "data[0].key", "data[9].objectName", "data[9].key", "data"} {
		if !fields[want] {
			t.Errorf("nothing about %s in %v", want, slices.Sorted(maps.Keys(fields)))
		}
	}
	if !strings.HasSuffix(err.Error(), fmt.Sprintf("; and %d more", len(failure.FieldViolations)-8)) {
		t.Errorf("the message has no end: %v", err)
	}
}

func TestBuild_TellsOnce(t *testing.T) {
	t.Parallel()
	for _, o := range []*apiv1.SecretObject{
		object("kubernetes.io/ssh-auth", "nope", "ssh-privatekey"),
		object("kubernetes.io/dockercfg", "nope", ".dockercfg"),
		withRules(object(""), apiv1.SecretObjectDataFrom{Files: "[a"}),
	} {
		_, err := secretdata.Build(o, []secretdata.File{file("a", "1"), file("b", "2")})
		failure, ok := errors.AsType[*rpc.Error](err)
		if !ok || len(failure.FieldViolations) != 1 {
			t.Errorf("%s: %v, want one violation", o.Type, err)
		}
	}
}

func TestBuild_TellsOfEachMissingFileOnce(t *testing.T) {
	t.Parallel()
	_, err := secretdata.Build(object("kubernetes.io/tls", "nope", "tls.crt", "nope", "tls.key"), []secretdata.File{file("a", "1"), file("b", "2")})
	failure, ok := errors.AsType[*rpc.Error](err)
	if !ok || len(failure.FieldViolations) != 2 {
		t.Errorf("%v, want two violations", err)
	}
}

func TestBuild_Size(t *testing.T) {
	t.Parallel()
	half := strings.Repeat("x", secretdata.MaxSize/2)
	o := object("", "a", "a", "b", "b")
	if _, err := secretdata.Build(o, []secretdata.File{file("a", half), file("b", half)}); err != nil {
		t.Errorf("just as much as fits: %v", err)
	}
	_, err := secretdata.Build(o, []secretdata.File{file("a", half), file("b", half+"x")})
	if want := "data has 1048577 bytes in sum, a Secret holds at most 1048576"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("one byte more: %v, want ... %s ...", err, want)
	}
}

func TestBuild_KeepsLabelsAndAnnotations(t *testing.T) {
	t.Parallel()
	o := object("", "a", "a")
	o.Labels = map[string]string{"secrets-store.csi.k8s.io/managed": "true", "app": "shop"}
	o.Annotations = map[string]string{"Example.com/Note": "any text, that is"}
	secret, err := secretdata.Build(o, []secretdata.File{file("a", "1")})
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(secret.Labels, o.Labels) || !maps.Equal(secret.Annotations, o.Annotations) {
		t.Errorf("labels %v, annotations %v, want %v, %v", secret.Labels, secret.Annotations, o.Labels, o.Annotations)
	}
}

func TestSecret_Wipe(t *testing.T) {
	t.Parallel()
	volume := []secretdata.File{file("a", "hunter2")}
	secret, err := secretdata.Build(object("", "a", "k"), volume)
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%+v %#v", secret, secret); strings.Contains(text, "hunter2") {
		t.Errorf("a printed Secret tells its data: %s", text)
	}
	secret.Wipe()
	if got := string(secret.Data["k"].Reveal()); got != "\x00\x00\x00\x00\x00\x00\x00" {
		t.Errorf("after Wipe the data is %q", got)
	}
	if got := string(volume[0].Contents.Reveal()); got != "hunter2" {
		t.Errorf("after Wipe the file holds %q", got)
	}
}
