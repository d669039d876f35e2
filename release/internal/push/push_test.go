package push_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/postern-dev/postern/release/images"
	"github.com/postern-dev/postern/release/internal/push"
)

// keychain has one user's password for every registry.
type keychain struct{ password string }

func (k keychain) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: "user", Password: k.password}, nil
}

// startRegistry returns the address of a registry that wants a password.
func startRegistry(t *testing.T) string {
	t.Helper()
	handler := registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "right" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// tarball writes an image for these platforms and returns file and digest.
func tarball(t *testing.T, contents string, platforms ...string) (file, digest string) {
	t.Helper()
	archive := images.Archive{Names: []string{"elsewhere/a:1"}}
	for _, platform := range platforms {
		archive.Images = append(archive.Images, images.Image{
			Platform: platform,
			Layers:   []images.Layer{{Files: []images.File{{Path: "/a", Contents: []byte(contents)}}}},
		})
	}
	file = filepath.Join(t.TempDir(), "a.tar")
	hash, err := archive.Write(file)
	if err != nil {
		t.Fatal(err)
	}
	return file, hash.String()
}

// pulled checks what a registry has under a name, and returns its digest.
func pulled(t *testing.T, reference string) string {
	t.Helper()
	tag, err := name.NewTag(reference)
	if err != nil {
		t.Fatal(err)
	}
	descriptor, err := remote.Get(tag, remote.WithAuthFromKeychain(keychain{"right"}))
	if err != nil {
		t.Fatal(err)
	}
	if descriptor.MediaType.IsIndex() {
		index, err := descriptor.ImageIndex()
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Index(index); err != nil {
			t.Errorf("the registry has an index that is not valid: %v", err)
		}
		return descriptor.Digest.String()
	}
	image, err := descriptor.Image()
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(image); err != nil {
		t.Errorf("the registry has an image that is not valid: %v", err)
	}
	return descriptor.Digest.String()
}

func TestPusher_Push(t *testing.T) {
	t.Parallel()
	for name, platforms := range map[string][]string{
		"image": {"linux/arm64"},
		"index": {"linux/amd64", "linux/arm64"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reference := startRegistry(t) + "/deep/down/a:v0.1.0"
			file, digest := tarball(t, "1", platforms...)
			pusher := push.Pusher{Keychain: keychain{"right"}}
			for _, present := range []bool{false, true} {
				result, err := pusher.Push(t.Context(), file, reference)
				want := push.Result{Reference: reference + "@" + digest, Present: present}
				if err != nil || result != want {
					t.Errorf("Push = %+v, %v; want %+v", result, err, want)
				}
				if got := pulled(t, reference); got != digest {
					t.Errorf("the registry has %s, want %s", got, digest)
				}
			}
		})
	}
}

// A released tag stays what it is.
func TestPusher_Overwrite(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		tag               string
		overwrite, pushed bool
	}{
		"release":              {tag: "v0.1.0"},
		"release, if told so":  {tag: "v0.1.0", overwrite: true, pushed: true},
		"development":          {tag: "v0.1.0-dev.1.gabc"},
		"tree that is changed": {tag: "v0.1.0-dev.1.gabc-dirty", pushed: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reference := startRegistry(t) + "/a:" + tt.tag
			first, want := tarball(t, "1", "linux/amd64")
			second, other := tarball(t, "2", "linux/amd64")
			pusher := push.Pusher{Keychain: keychain{"right"}, Overwrite: tt.overwrite}
			if _, err := pusher.Push(t.Context(), first, reference); err != nil {
				t.Fatal(err)
			}
			_, err := pusher.Push(t.Context(), second, reference)
			if tt.pushed {
				want = other
			}
			if (err == nil) != tt.pushed {
				t.Errorf("error = %v", err)
			}
			if !tt.pushed && err != nil && !strings.Contains(err.Error(), "raise the version in versions.yaml") {
				t.Errorf("error does not say what to do: %v", err)
			}
			if got := pulled(t, reference); got != want {
				t.Errorf("the registry has %s, want %s", got, want)
			}
		})
	}
}

func TestPusher_Errors(t *testing.T) {
	t.Parallel()
	address := startRegistry(t)
	file, _ := tarball(t, "1", "linux/amd64")
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for name, tt := range map[string]struct{ file, reference, password, want string }{
		"wrong password": {file, address + "/a:1", "wrong", `log in with "docker login"`},
		"no registry":    {file, strings.TrimPrefix(gone.URL, "http://") + "/a:1", "right", "connection refused"},
		"no image":       {file + ".gone", address + "/a:1", "right", "open an image"},
		"no name":        {file, address + "/A", "right", "push to "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := push.Pusher{Keychain: keychain{tt.password}}.Push(t.Context(), tt.file, tt.reference)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want %q", err, tt.want)
			}
		})
	}
}
