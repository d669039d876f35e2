package sdk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-dev/postern/internal/unixsocket"
)

func TestAllowedUIDs(t *testing.T) {
	t.Parallel()
	own := uint32(os.Getuid())
	allowed, err := parseUIDs([]string{"4711", " 4712"})
	if err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[uint32]bool{own: true, 4711: true, 4712: true, 4713: false, 65534: false} {
		if err := allowed.authorize(t.Context(), unixsocket.Peer{UID: uid}, "/x/y"); (err == nil) != want {
			t.Errorf("authorize(%d) = %v", uid, err)
		}
	}
	for _, text := range []string{"", "-1", "root", "4294967296"} {
		if _, err := parseUIDs([]string{text}); err == nil {
			t.Errorf("parseUIDs(%q) = nil", text)
		}
	}
}

func TestNewInstanceName(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, dir := range []string{"/run/p", "/run/p", "/" + strings.Repeat("d", 84), "/" + strings.Repeat("d", 92)} {
		name, err := newInstanceName(dir)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name+socketSuffix)
		if names[name] || len(name) > 49 || len(path) > unixsocket.MaxPathLength || strings.ContainsAny(name[:1], "/.-") {
			t.Errorf("name %q, after %v; its path has %d bytes", name, names, len(path))
		}
		names[name] = true
	}
}
