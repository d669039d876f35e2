package policy_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/gateway/internal/policy"
	"github.com/postern-dev/postern/gateway/internal/policy/rules"
	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/internal/telemetry"
)

// configMap is a volume as kubelet makes it: a link to what is a link to a
// directory, which is replaced by another.
type configMap struct {
	dir     string
	version int
}

func (c *configMap) swap(t *testing.T, content string) {
	t.Helper()
	c.version++
	version := fmt.Sprintf("..%d", c.version)
	if err := os.Mkdir(filepath.Join(c.dir, version), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(c.dir, version, "policy.yaml"), content)
	next := filepath.Join(c.dir, "..data_tmp")
	if err := os.Symlink(version, next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(c.dir, "..data")); err != nil {
		t.Fatal(err)
	}
	if c.version > 1 {
		if err := os.RemoveAll(filepath.Join(c.dir, fmt.Sprintf("..%d", c.version-1))); err != nil {
			t.Fatal(err)
		}
	}
}

func newConfigMap(t *testing.T, content string) *configMap {
	t.Helper()
	c := &configMap{dir: t.TempDir()}
	c.swap(t, content)
	if err := os.Symlink(filepath.Join("..data", "policy.yaml"), filepath.Join(c.dir, "policy.yaml")); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestRun_ConfigMap: new rules come into force, broken ones do not.
func TestRun_ConfigMap(t *testing.T) {
	t.Parallel()
	volume := newConfigMap(t, allows)
	w := &world{path: filepath.Join(volume.dir, "policy.yaml"), log: &log{}, tel: telemetry.Discard()}
	w.open(t)
	w.run(t, w.Run)
	opened := w.Status().LoadedAt
	if err := w.Check(t.Context(), request("shop-app")); err != nil {
		t.Fatal(err)
	}

	volume.swap(t, denies)
	w.eventually(t, "new rules", inForce("denies"))
	if err := w.Check(t.Context(), request("shop-app")); err == nil {
		t.Error("the fetch is allowed by rules of old")
	}
	if !w.Status().LoadedAt.After(opened) {
		t.Errorf("loaded at %v, and at first at %v", w.Status().LoadedAt, opened)
	}

	volume.swap(t, broken)
	w.eventually(t, "broken rules", func(s policy.Status) bool {
		return s.Error == `line 1: rule "broken": require: 1:4: undefined field 'nmae'` && cmp.Equal([]string{"denies"}, s.Rules)
	})
	if err := w.Check(t.Context(), request("shop-app")); err == nil {
		t.Error("a broken file has put the rules out of force")
	}
	if got := w.metrics(t); !strings.Contains(got, "postern_gateway_policy_stale 1\n") ||
		!strings.Contains(got, `postern_gateway_policy_reloads_total{outcome="failed"} 1`) {
		t.Errorf("metrics:\n%s", got)
	}

	volume.swap(t, allows)
	w.eventually(t, "good rules again", inForce("allows"))
	if got := w.metrics(t); !strings.Contains(got, "postern_gateway_policy_stale 0\n") ||
		!strings.Contains(got, `postern_gateway_policy_reloads_total{outcome="ok"} 2`) {
		t.Errorf("metrics:\n%s", got)
	}
}

// TestRun_File: editors and people write files in other ways.
func TestRun_File(t *testing.T) {
	t.Parallel()
	w := newWorld(t, allows)
	w.run(t, w.Run)
	write(t, w.path, denies)
	w.eventually(t, "written over", inForce("denies"))

	if err := os.Remove(w.path); err != nil {
		t.Fatal(err)
	}
	w.eventually(t, "removed", func(s policy.Status) bool {
		return strings.Contains(s.Error, "no such file") && cmp.Equal([]string{"denies"}, s.Rules)
	})
	if err := w.Check(t.Context(), request("shop-app")); err == nil {
		t.Error("no rules are in force once the file is gone")
	}

	next := w.path + ".new"
	write(t, next, allows)
	if err := os.Rename(next, w.path); err != nil {
		t.Fatal(err)
	}
	w.eventually(t, "replaced", inForce("allows"))
}

// TestRun_Unwatched: without a watch the file is looked at now and then, and
// what is wrong is said once.
func TestRun_Unwatched(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &world{path: filepath.Join(dir, "policy.yaml"), log: &log{}, tel: telemetry.Discard()}
		write(t, w.path, allows)
		w.open(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.RunUnwatched(ctx) }()
		synctest.Wait()

		looks := func(n int) {
			<-time.After(time.Duration(n) * policy.LookInterval)
			synctest.Wait()
		}
		write(t, w.path, broken)
		synctest.Wait()
		if !inForce("allows")(w.Status()) {
			t.Errorf("read before it is time to: %+v", w.Status())
		}
		looks(5)
		if lines := w.log.lines(); len(lines) != 1 || !strings.Contains(lines[0], "undefined field 'nmae'") {
			t.Errorf("one broken file is logged as %q", lines)
		}
		write(t, w.path, "")
		looks(5)
		if lines := w.log.lines(); len(lines) != 2 || !strings.Contains(lines[1], "the file is empty") {
			t.Errorf("another broken file is logged as %q", lines)
		}
		if err := os.Remove(w.path); err != nil {
			t.Fatal(err)
		}
		looks(5)
		if lines := w.log.lines(); len(lines) != 3 || !strings.Contains(lines[2], "no such file") {
			t.Errorf("a file that is gone is logged as %q", lines)
		}
		if got := w.metrics(t); !strings.Contains(got, `reloads_total{outcome="failed"} 3`) {
			t.Errorf("metrics:\n%s", got)
		}
		write(t, w.path, allows)
		looks(1)
		if !inForce("allows")(w.Status()) {
			t.Errorf("the file has the rules in force again: %+v", w.Status())
		}
		write(t, w.path, denies)
		looks(1)
		if !inForce("denies")(w.Status()) {
			t.Errorf("new rules: %+v", w.Status())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestEnforcer_ConcurrentSafe: a check sees the rules of one file, whole.
func TestEnforcer_ConcurrentSafe(t *testing.T) {
	t.Parallel()
	// Of two rules, the first asks for a service account and the second for the
	// same: one from each file would refuse, or allow, everybody.
	file := func(account string) string {
		return fmt.Sprintf("rules: [{name: a, require: serviceAccount.name == '%[1]s', message: '%[1]s'}, {name: b, require: serviceAccount.name == '%[1]s'}]", account)
	}
	volume := newConfigMap(t, file("app"))
	w := &world{path: filepath.Join(volume.dir, "policy.yaml"), log: &log{}, tel: telemetry.Discard()}
	w.open(t)
	w.run(t, w.Run)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var denial *rpc.Error
				err := w.Check(t.Context(), request("shop-app"))
				if err != nil && (!errors.As(err, &denial) || denial.Metadata[rules.MetadataRule] != "a" || !strings.HasSuffix(denial.Message, ": other")) {
					t.Errorf("got %v", err)
				}
				_ = w.Status()
			}
		})
	}
	for i := range 6 {
		account := []string{"other", "app"}[i%2]
		before := w.Status().LoadedAt
		volume.swap(t, file(account))
		w.eventually(t, account, func(s policy.Status) bool { return s.LoadedAt.After(before) })
	}
	close(stop)
	wg.Wait()
}
