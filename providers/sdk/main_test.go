package sdk_test

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/postern-dev/postern/internal/daemon"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	"github.com/postern-dev/postern/providers/sdk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// At the end the call is drained, while background work goes on; then that
// ends, and then the provider shuts down.
func TestRun_EndsInOrder(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	p := &scripted{fetch: func(context.Context, *sdk.Request) (*sdk.Response, error) {
		close(entered)
		<-leave
		return oneFile(), nil
	}}
	dir := shortDir(t)
	r := start(t, dir, definition(p))
	fetched := make(chan error, 1)
	go func() {
		_, err := r.provider.Fetch(t.Context(), fetchRequest())
		fetched <- err
	}()
	<-entered
	r.stop()
	waitFor(t, func() bool { // the socket goes first
		_, err := os.Lstat(filepath.Join(dir, "test.sock"))
		return errors.Is(err, fs.ErrNotExist)
	})
	close(leave)
	if err := <-fetched; err != nil {
		t.Errorf("fetch that was in flight: %v", err)
	}
	if err := <-r.done; err != nil {
		t.Errorf("Run() = %v", err)
	}
	if diff := cmp.Diff([]string{"fetched", "background ended", "shut down"}, p.events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	limit := time.After(10 * time.Second)
	for !condition() {
		select {
		case <-again.C:
		case <-limit:
			t.Fatal("condition does not come")
		}
	}
}

func TestRun_Fails(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	t.Run("background", func(t *testing.T) {
		t.Parallel()
		ready := make(chan struct{})
		p := answering(oneFile())
		p.run = func(context.Context) error { <-ready; return broken }
		r := start(t, shortDir(t), definition(p))
		close(ready)
		if err := <-r.done; !errors.Is(err, broken) || !strings.Contains(err.Error(), `run provider "scripted"`) {
			t.Errorf("Run() = %v", err)
		}
		if diff := cmp.Diff([]string{"shut down"}, p.events); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
	t.Run("shutdown", func(t *testing.T) {
		t.Parallel()
		p := answering(oneFile())
		p.shutdown = broken
		r := start(t, shortDir(t), definition(p))
		r.stop()
		if err := <-r.done; !errors.Is(err, broken) || !strings.Contains(err.Error(), `shut down provider "scripted"`) {
			t.Errorf("Run() = %v", err)
		}
	})
	t.Run("constructor", func(t *testing.T) {
		t.Parallel()
		def := definition(nil)
		def.New = func(context.Context, sdk.Environment) (sdk.Provider, error) { return nil, broken }
		err := sdk.Run(t.Context(), def, sdk.Env{Args: []string{"--listen-dir=" + shortDir(t)}})
		if !errors.Is(err, broken) {
			t.Errorf("Run() = %v", err)
		}
	})
	t.Run("health address in use", func(t *testing.T) {
		t.Parallel()
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		err = sdk.Run(t.Context(), definition(answering(oneFile())), sdk.Env{
			Args: []string{"--listen-dir=" + shortDir(t), "--health-addr=" + l.Addr().String()},
		})
		if err == nil || !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("Run() = %v", err)
		}
	})
	t.Run("definition", func(t *testing.T) {
		t.Parallel()
		if err := sdk.Run(t.Context(), sdk.Definition{Name: "x"}, sdk.Env{}); err == nil || !strings.Contains(err.Error(), "New is nil") {
			t.Errorf("Run() = %v", err)
		}
	})
}

// A provider that starts before the node driver has made its directory waits
// for it, is not ready and need not be started again.
func TestRun_DirectoryComesLater(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(shortDir(t), "later")
	r := startWaiting(t, dir, definition(answering(oneFile())))
	waitFor(t, func() bool { return r.health(t, "/readyz") == http.StatusServiceUnavailable })
	if got := r.health(t, "/healthz"); got != http.StatusOK {
		t.Errorf("/healthz while it waits: %d", got)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return r.health(t, "/readyz") == http.StatusOK })
	// The directory is made anew: the container has to start again to see it.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if got := r.health(t, "/healthz"); got != http.StatusServiceUnavailable {
		t.Errorf("/healthz without a socket: %d", got)
	}
	r.stop()
	if err := <-r.done; err != nil {
		t.Errorf("Run() = %v", err)
	}
}

func TestRun_Usage(t *testing.T) {
	t.Parallel()
	def := definition(answering(oneFile()))
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"no directory", nil, "--listen-dir is required"},
		{"uid", []string{"--listen-dir=/x", "--allowed-uids=0,root"}, `--allowed-uids: "root" is not a user id`},
		{"instance", []string{"--listen-dir=/x", "--instance=../y"}, `--instance "../y" is no file name`},
		{"hidden instance", []string{"--listen-dir=/x", "--instance=.y"}, `--instance ".y" is no file name`},
		{"unknown", []string{"--nothing"}, "flag provided but not defined: -nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := sdk.Run(t.Context(), def, sdk.Env{Args: tt.args, Stderr: &syncBuffer{}})
			if _, ok := errors.AsType[*daemon.UsageError](err); !ok || err.Error() != tt.want {
				t.Errorf("Run() = %v (%T), want usage error %s", err, err, tt.want)
			}
		})
	}
}

func TestRun_Help(t *testing.T) {
	t.Parallel()
	def := definition(nil)
	var address string
	def.Flags = func(f *sdk.Flags) { f.String(&address, "address", "", "where the store is") }
	var out syncBuffer
	err := sdk.Run(t.Context(), def, sdk.Env{Args: []string{"--help"}, Stdout: &out})
	if !errors.Is(err, flag.ErrHelp) {
		t.Errorf("Run() = %v", err)
	}
	for _, want := range []string{"POSTERN_LISTEN_DIR", "--allowed-uids", "Provider scripted:", "--address", "POSTERN_ADDRESS"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("help has no %s:\n%s", want, out.String())
		}
	}
}

// makeStale leaves a socket behind, as a process that is killed does.
func makeStale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestRun_RemovesStaleSockets(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	makeStale(t, filepath.Join(dir, "dead.sock"))
	makeStale(t, filepath.Join(dir, "test.sock"))
	makeStale(t, filepath.Join(dir, "other"))
	if err := os.WriteFile(filepath.Join(dir, "file.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	live, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, "live.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = live.Close() }()
	r := start(t, dir, definition(answering(oneFile())))
	if diff := cmp.Diff([]string{"file.sock", "live.sock", "other", "test.sock"}, names(t, dir)); diff != "" {
		t.Errorf("directory (-want +got):\n%s", diff)
	}
	info, err := os.Lstat(filepath.Join(dir, "test.sock"))
	if err != nil || info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("socket is %v, %v, want mode 0660", info.Mode(), err)
	}
	r.stop()
	if err := <-r.done; err != nil {
		t.Errorf("Run() = %v", err)
	}
	if slices.Contains(names(t, dir), "test.sock") {
		t.Error("the socket is still there after the end")
	}
}

// In a directory of the upstream driver there are other providers' sockets.
func TestRun_LeavesOtherProvidersSockets(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	makeStale(t, filepath.Join(dir, "other.sock"))
	makeStale(t, filepath.Join(dir, "test.sock"))
	def := definition(answering(oneFile()))
	def.Names = []string{"scripted", "test"}
	start(t, dir, def)
	if diff := cmp.Diff([]string{"other.sock", "test.sock"}, names(t, dir)); diff != "" {
		t.Errorf("directory (-want +got):\n%s", diff)
	}
}

// Two instances of a rolling update run side by side without any flag.
func TestRun_InstancesDoNotMeet(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 2)
	for range 2 {
		go func() {
			done <- sdk.Run(ctx, definition(answering(oneFile())), sdk.Env{Args: []string{"--listen-dir=" + dir, "--health-addr="}})
		}()
	}
	sockets := func() []string {
		return slices.DeleteFunc(names(t, dir), func(n string) bool { return !strings.HasSuffix(n, ".sock") })
	}
	waitFor(t, func() bool { return len(sockets()) == 2 })
	stop()
	for range 2 {
		if err := <-done; err != nil {
			t.Errorf("Run() = %v", err)
		}
	}
	if left := sockets(); len(left) > 0 {
		t.Errorf("sockets left: %v", left)
	}
}

// lister wants tokens that its flags say.
type lister struct {
	*scripted

	audiences []sdk.Audience
}

func (l *lister) Audiences() []sdk.Audience { return l.audiences }

// Audiences that a provider finds in its flags are wanted as those of the
// definition are.
func TestRun_Audiences(t *testing.T) {
	t.Parallel()
	with := func(audiences ...sdk.Audience) sdk.Definition {
		def := definition(nil)
		def.New = func(context.Context, sdk.Environment) (sdk.Provider, error) {
			return &lister{answering(oneFile()), audiences}, nil
		}
		return def
	}
	def := with(sdk.Audience{Value: "pool.svc.id.goog", Optional: true})
	r := start(t, shortDir(t), def)
	described, err := r.provider.Describe(t.Context(), &providerv1.DescribeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	last := described.GetAudiences()[len(described.GetAudiences())-1]
	if len(described.GetAudiences()) != len(def.Audiences)+1 || last.GetValue() != "pool.svc.id.goog" || !last.GetOptional() {
		t.Errorf("audiences %v", described.GetAudiences())
	}
	err = sdk.Run(t.Context(), with(sdk.Audience{}), sdk.Env{Args: []string{"--listen-dir=" + shortDir(t)}})
	if err == nil || !strings.Contains(err.Error(), "audiences of provider") {
		t.Errorf("Run() = %v, want a refusal of an audience that says nothing", err)
	}
}
