package key_test

import (
	"maps"
	"math/rand/v2"
	"strconv"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/postern-dev/postern/gateway/internal/key"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

func input() key.Input {
	return key.Input{
		Request: &gatewayv1.FetchRequest{
			VolumeId: "csi-1", Provider: "vault", SecretProviderClass: "db", DefaultFileMode: 0o644,
			Pod: &secretv1.Pod{
				Namespace: "shop", Name: "web-0", Uid: "8a6f",
				ServiceAccount: &secretv1.ServiceAccount{Name: "web", Annotations: map[string]string{"role": "r"}},
			},
			Node:       &secretv1.Node{Name: "n1", Labels: map[string]string{"region": "a"}},
			TargetPath: "/var/lib/kubelet/pods/8a6f/mount",
			Tokens:     []*secretv1.Token{{Audience: "vault", Token: "jwt"}},
		},
		Parameters: map[string]string{"roleName": "web", "objects": "- objectName: a"},
		Secrets:    map[string]string{"id": "s3cr3t"},
		Audiences:  []string{"vault", "sts"},
	}
}

// What two fetches may differ in and still share, and what they may not.
func TestShared(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*key.Input)
		same   bool
	}{
		{"nothing", func(*key.Input) {}, true},
		{"pod's name", func(in *key.Input) { in.Request.Pod.Name = "web-1" }, true},
		{"pod's uid", func(in *key.Input) { in.Request.Pod.Uid = "other" }, true},
		{"volume", func(in *key.Input) { in.Request.VolumeId = "csi-2" }, true},
		{"target path", func(in *key.Input) { in.Request.TargetPath = "/other" }, true},
		{"token", func(in *key.Input) { in.Request.Tokens[0].Token = "other" }, true},
		{"refresh", func(in *key.Input) { in.Request.Refresh = true }, true},
		{"what the volume holds", func(in *key.Input) {
			in.Request.CurrentObjects = []*secretv1.ObjectVersion{{Id: "a", Version: "1"}}
		}, true},
		{"node's name", func(in *key.Input) { in.Request.Node.Name = "n2" }, true},
		{"order of audiences", func(in *key.Input) { in.Audiences = []string{"sts", "vault"} }, true},

		{"provider", func(in *key.Input) { in.Request.Provider = "aws" }, false},
		{"namespace", func(in *key.Input) { in.Request.Pod.Namespace = "other" }, false},
		{"service account", func(in *key.Input) { in.Request.Pod.ServiceAccount.Name = "other" }, false},
		{"class", func(in *key.Input) { in.Request.SecretProviderClass = "other" }, false},
		{"file mode", func(in *key.Input) { in.Request.DefaultFileMode = 0o600 }, false},
		{"parameter's value", func(in *key.Input) { in.Parameters["roleName"] = "admin" }, false},
		{"parameter's name", func(in *key.Input) { in.Parameters = map[string]string{"roleNam": "eweb"} }, false},
		{"parameter more", func(in *key.Input) { in.Parameters["x"] = "" }, false},
		{"parameter less", func(in *key.Input) { delete(in.Parameters, "objects") }, false},
		{"secret's value", func(in *key.Input) { in.Secrets["id"] = "other" }, false},
		{"secret more", func(in *key.Input) { in.Secrets["x"] = "" }, false},
		{"no secret", func(in *key.Input) { in.Secrets = nil }, false},
		{"secret as a parameter", func(in *key.Input) { in.Parameters["id"], in.Secrets = in.Secrets["id"], nil }, false},
		{"annotation", func(in *key.Input) { in.Request.Pod.ServiceAccount.Annotations["role"] = "other" }, false},
		{"node's label", func(in *key.Input) { in.Request.Node.Labels["region"] = "b" }, false},
		{"audience", func(in *key.Input) { in.Audiences[0] = "other" }, false},
		{"audience less", func(in *key.Input) { in.Audiences = in.Audiences[:1] }, false},
		{"no audience", func(in *key.Input) { in.Audiences = nil }, false},
	}
	maker := key.NewMaker()
	base := maker.Shared(input())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := input()
			tt.change(&in)
			if same := maker.Shared(in) == base; same != tt.same {
				t.Errorf("same key: %t, want %t", same, tt.same)
			}
		})
	}
}

// A private key is one volume's.
func TestPrivate(t *testing.T) {
	t.Parallel()
	maker := key.NewMaker()
	private := func(in key.Input) key.Key { return maker.Shared(in).ForVolume(in.Request) }
	base := private(input())
	switch {
	case base != private(input()):
		t.Error("the same volume has two keys")
	case base == maker.Shared(input()):
		t.Error("the private key is the shared one")
	case base.Shared() != maker.Shared(input()):
		t.Error("the private key's shared part is not the shared key")
	case !base.Private() || base.Shared().Private():
		t.Error("which key is private is not told")
	}
	for name, change := range map[string]func(*key.Input){
		"pod":       func(in *key.Input) { in.Request.Pod.Uid = "other" },
		"volume":    func(in *key.Input) { in.Request.VolumeId = "other" },
		"namespace": func(in *key.Input) { in.Request.Pod.Namespace = "other" },
	} {
		in := input()
		change(&in)
		if private(in) == base {
			t.Errorf("another %s has the same key", name)
		}
	}
}

// What one process' keys tell about a secret helps nobody elsewhere.
func TestMakers(t *testing.T) {
	t.Parallel()
	one, other := key.NewMaker().Shared(input()), key.NewMaker().Shared(input())
	if one.Digest == other.Digest {
		t.Error("two makers have the same digest")
	}
}

// Random pairs of requests that differ in identity, parameters or secrets never
// have the same key, and equal ones always do.
func TestShared_Property(t *testing.T) {
	t.Parallel()
	maker := key.NewMaker()
	random := rand.New(rand.NewPCG(1, 2))
	equal := 0
	for range 50_000 {
		a, b := randomInput(random), randomInput(random)
		if random.IntN(4) == 0 {
			b = clone(a)
		}
		same := equivalent(a, b)
		if same {
			equal++
		}
		if got := maker.Shared(a) == maker.Shared(b); got != same {
			t.Fatalf("same key: %t, want %t:\n%v\n%v", got, same, a, b)
		}
	}
	if equal < 1000 {
		t.Errorf("only %d pairs were equal: the inputs are too random to find anything", equal)
	}
}

// randomInput draws from few values, so that inputs differ in little and
// boundaries between them can be mistaken.
func randomInput(random *rand.Rand) key.Input {
	text := func() string { return []string{"", "a", "b", "aa", "ab", "a\x00", "b=a"}[random.IntN(7)] }
	pairs := func() map[string]string {
		m := map[string]string{}
		for range random.IntN(3) {
			m[text()] = text()
		}
		return m
	}
	in := key.Input{
		Request: &gatewayv1.FetchRequest{
			Provider: text(), SecretProviderClass: text(), DefaultFileMode: uint32(random.IntN(2)),
			VolumeId: strconv.Itoa(random.Int()),
			Pod: &secretv1.Pod{
				Namespace: text(), Uid: strconv.Itoa(random.Int()),
				ServiceAccount: &secretv1.ServiceAccount{Name: text(), Annotations: pairs()},
			},
			Node: &secretv1.Node{Labels: pairs()},
		},
		Parameters: pairs(),
		Secrets:    pairs(),
	}
	for range random.IntN(3) {
		in.Audiences = append(in.Audiences, text())
	}
	return in
}

func clone(in key.Input) key.Input {
	return key.Input{
		Request:    proto.CloneOf(in.Request),
		Parameters: maps.Clone(in.Parameters),
		Secrets:    maps.Clone(in.Secrets),
		Audiences:  append([]string(nil), in.Audiences...),
	}
}

// equivalent says in its own words when two fetches are the same.
func equivalent(a, b key.Input) bool {
	ra, rb := a.Request, b.Request
	return ra.GetProvider() == rb.GetProvider() &&
		ra.GetSecretProviderClass() == rb.GetSecretProviderClass() &&
		ra.GetDefaultFileMode() == rb.GetDefaultFileMode() &&
		ra.GetPod().GetNamespace() == rb.GetPod().GetNamespace() &&
		ra.GetPod().GetServiceAccount().GetName() == rb.GetPod().GetServiceAccount().GetName() &&
		maps.Equal(ra.GetPod().GetServiceAccount().GetAnnotations(), rb.GetPod().GetServiceAccount().GetAnnotations()) &&
		maps.Equal(ra.GetNode().GetLabels(), rb.GetNode().GetLabels()) &&
		maps.Equal(a.Parameters, b.Parameters) &&
		maps.Equal(a.Secrets, b.Secrets) &&
		maps.Equal(counts(a.Audiences), counts(b.Audiences))
}

func counts(values []string) map[string]int {
	m := map[string]int{}
	for _, v := range values {
		m[v]++
	}
	return m
}

// FuzzShared looks for two different inputs with one key.
func FuzzShared(f *testing.F) {
	f.Add("roleName", "web", "roleNam", "eweb", "s", "s", "vault", "vault")
	f.Add("a", "b", "", "ab", "", "", "x", "")
	maker := key.NewMaker()
	f.Fuzz(func(t *testing.T, nameA, valueA, nameB, valueB, secretA, secretB, accountA, accountB string) {
		changed := func(name, value, secret, account string) key.Input {
			in := input()
			in.Parameters = map[string]string{name: value}
			in.Secrets = map[string]string{"id": secret}
			in.Request.Pod.ServiceAccount.Name = account
			return in
		}
		a, b := changed(nameA, valueA, secretA, accountA), changed(nameB, valueB, secretB, accountB)
		if got, want := maker.Shared(a) == maker.Shared(b), equivalent(a, b); got != want {
			t.Errorf("same key: %t, want %t", got, want)
		}
	})
}

func BenchmarkShared(b *testing.B) {
	maker, in := key.NewMaker(), input()
	b.ReportAllocs()
	for b.Loop() {
		maker.Shared(in)
	}
}
