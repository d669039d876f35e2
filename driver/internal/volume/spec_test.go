package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-dev/postern/driver/internal/fileset"
	"github.com/postern-dev/postern/driver/internal/mount"
	"github.com/postern-dev/postern/driver/internal/volume/volumetest"
)

func TestNew_Refuses(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for name, tc := range map[string]struct {
		mutate func(*Config)
		want   string
	}{
		"no root":          {func(c *Config) { c.Root = "" }, `kubelet root "" must be an absolute path`},
		"relative root":    {func(c *Config) { c.Root = "kubelet" }, `kubelet root "kubelet" must be an absolute path`},
		"relative staging": {func(c *Config) { c.StagingDir = "x" }, `staging directory "x" must be an absolute path`},
		"negative size":    {func(c *Config) { c.Size = -1 }, `volume size limit -1 must be at least 4096 bytes`},
		"huge size":        {func(c *Config) { c.Size = 1 << 41 }, `volume size limit 2199023255552 must be at most 1099511627776 bytes`},
		"few inodes":       {func(c *Config) { c.Inodes = 15 }, `volume inode limit 15 must be at least 16`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Root: root}
			tc.mutate(&cfg)
			_, err := New(cfg)
			if err == nil || err.Error() != tc.want {
				t.Fatalf("New: %v, want %s", err, tc.want)
			}
		})
	}
}

func newPlanner(t *testing.T) *Manager {
	t.Helper()
	m, err := New(Config{Root: t.TempDir(), Size: 2 * fileset.PageSize, Inodes: 40})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestManager_RefusesSpec(t *testing.T) {
	t.Parallel()
	negative := int64(-1)
	many := make([]File, 14)
	for i := range many {
		many[i] = volumetest.File(fmt.Sprint(i), "")
	}
	for name, tc := range map[string]struct {
		mutate func(*Spec)
		is     error
		want   string
	}{
		"no files": {func(s *Spec) { s.Files = nil }, fileset.ErrNoFiles, fileset.ErrNoFiles.Error()},
		"bad path": {
			func(s *Spec) { s.Files[0].Path = "../a" }, nil,
			`file "../a" must not have ".." in its path`,
		},
		"too large": {
			func(s *Spec) { s.Files = []File{volumetest.File("a", strings.Repeat("x", 3*fileset.PageSize))} },
			fileset.ErrTooLarge,
			"volume is too large: 1 files take 12288 bytes in pages of 4096, the limit is 8192: ",
		},
		"too many": {
			func(s *Spec) { s.Files = many },
			fileset.ErrTooLarge,
			"volume is too large: a refresh of 14 files and 0 directories needs 47 inodes, the limit is 40: ",
		},
		"negative group": {func(s *Spec) { s.GID = &negative }, nil, "fsGroup -1 is not a group id"},
		"label with quote": {
			func(s *Spec) { s.SELinuxContext = `a",size=0` },
			mount.ErrSELinux,
			`cannot label the volume for SELinux: "a\",size=0" is not a label`,
		},
		"relative target": {func(s *Spec) { s.Target = "pods/x" }, ErrTarget, "bad target path: it must be absolute and clean"},
		"target unclean":  {func(s *Spec) { s.Target += "/../x" }, ErrTarget, "bad target path: it must be absolute and clean"},
		"target is root":  {func(s *Spec) { s.Target = filepath.Dir(s.Target) }, ErrTarget, "bad target path: it must lie below "},
		"target outside":  {func(s *Spec) { s.Target = "/elsewhere/x" }, ErrTarget, "bad target path: it must lie below "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newPlanner(t)
			spec := Spec{Target: filepath.Join(m.cfg.Root, "x"), Files: []File{volumetest.File("a", "b")}}
			tc.mutate(&spec)
			err := m.Publish(t.Context(), spec)
			if err == nil || !strings.HasPrefix(err.Error(), "publish volume at "+spec.Target+": "+tc.want) {
				t.Errorf("Publish: %v\nwant %s", err, tc.want)
			}
			if _, updateErr := m.Update(t.Context(), spec); updateErr == nil ||
				!strings.HasPrefix(updateErr.Error(), "update volume at "+spec.Target+": "+tc.want) {
				t.Errorf("Update: %v\nwant %s", updateErr, tc.want)
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("Publish: %v is not %v", err, tc.is)
			}
		})
	}
}

func TestTarget_RefusedByEveryMethod(t *testing.T) {
	t.Parallel()
	m := newPlanner(t)
	for _, target := range []string{"", "x", "/", "/elsewhere", m.cfg.Root, m.cfg.Root + "/../x", m.cfg.Root + "x", m.cfg.Root + "/a\x00b"} {
		if _, err := m.State(target); !errors.Is(err, ErrTarget) {
			t.Errorf("State(%q): %v", target, err)
		}
		if err := m.Unpublish(t.Context(), target); !errors.Is(err, ErrTarget) {
			t.Errorf("Unpublish(%q): %v", target, err)
		}
		if _, err := m.Update(t.Context(), Spec{Target: target, Files: fiveFiles()[:1]}); !errors.Is(err, ErrTarget) {
			t.Errorf("Update(%q): %v", target, err)
		}
	}
}

func TestSpec_DoesNotShowContents(t *testing.T) {
	t.Parallel()
	const secret = "correct horse"
	spec := Spec{Target: "/x", Files: []File{volumetest.File("a", secret)}}
	encoded, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "spec", spec)
	shown := string(encoded) + log.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		shown += fmt.Sprintf(verb, spec)
	}
	for _, form := range []string{secret, "636f7272656374", "99 111 114", "0x63", "Y29ycmVjd"} {
		if strings.Contains(shown, form) {
			t.Errorf("%q shows in %s", form, shown)
		}
	}
}

func TestState_String(t *testing.T) {
	t.Parallel()
	got := ""
	for s := NotMounted; s <= Foreign+1; s++ {
		got += s.String() + ";"
	}
	if want := "not mounted;complete;incomplete;broken;foreign;State(5);"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
