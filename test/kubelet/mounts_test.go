package kubelet

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		line   string
		want   Mount
		wantOK bool
	}{
		"tmpfs": {
			line:   "36 35 0:48 / /var/lib/kubelet/x/mount ro,nosuid,nodev,noexec shared:5 - tmpfs postern rw,size=1024k,mode=755,noswap",
			want:   Mount{Path: "/var/lib/kubelet/x/mount", Type: "tmpfs", Options: "ro,nosuid,nodev,noexec", FilesystemOptions: "rw,size=1024k,mode=755,noswap"},
			wantOK: true,
		},
		"space in the path": {
			line:   `36 35 0:48 / /a\040b rw - ext4 /dev/vda rw`,
			want:   Mount{Path: "/a b", Type: "ext4", Options: "rw", FilesystemOptions: "rw"},
			wantOK: true,
		},
		"not a mount": {line: "hello"},
		"cut short":   {line: "36 35 0:48 / /a rw - ext4"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, ok := parse(test.line)
			if diff := cmp.Diff(test.want, got); diff != "" || ok != test.wantOK {
				t.Errorf("parse() = %t (-want +got):\n%s", ok, diff)
			}
		})
	}
}

func TestMount_Has(t *testing.T) {
	t.Parallel()
	m := Mount{Options: "ro,nosuid", FilesystemOptions: "rw,noswap"}
	if !m.Has("nosuid", "noswap") || m.Has("nosuid", "noexec") || m.Has("no") {
		t.Error("Has() does not look for whole options of both kinds")
	}
}

// The formula is kubelet's: every driver upgrade depends on the ids being the same.
func TestVolumeID(t *testing.T) {
	t.Parallel()
	const want = "csi-55af0df8047f8becea88224767122ad15985b38a1b786663edfd11d0f98bfb75"
	got := VolumeID(Volume{UID: "10f3e31c-d20b-4e46-921a-39e4cace6db2", Name: "secrets-store-inline"})
	if got != want {
		t.Errorf("VolumeID() = %q, want %q", got, want)
	}
}
