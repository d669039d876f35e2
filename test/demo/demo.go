// Package demo tells the story of one mount, step by step, with the real daemons.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/harness"
	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/otlp"
)

// traceTimeout is how long the trace's last part may take to arrive.
const traceTimeout = 15 * time.Second

// Config is what a demo needs.
type Config struct {
	// Out gets the story, Progress what the builds say.
	Out, Progress io.Writer
	// Pause waits for the context's end before cleaning up.
	Pause bool
	// Keep leaves the cluster up.
	Keep bool
	// Getenv reads the environment.
	Getenv func(string) string
}

// ErrNotRoot says that the demo mounts filesystems and starts processes as
// other users.
var ErrNotRoot = errors.New("this needs root: it mounts a filesystem and runs each daemon as a user of its own.\n" +
	"Try: sudo -E make demo")

// teller prints the numbered steps of the story.
type teller struct {
	out  io.Writer
	step int
}

func (t *teller) title(format string, args ...any) {
	t.step++
	_, _ = fmt.Fprintf(t.out, "\n%d. "+format+"\n", append([]any{t.step}, args...)...)
}

func (t *teller) say(format string, args ...any) {
	_, _ = fmt.Fprintf(t.out, "   "+format+"\n", args...)
}

func (t *teller) quote(text string) {
	for line := range strings.Lines(strings.TrimSpace(text)) {
		_, _ = fmt.Fprint(t.out, "   │ "+strings.TrimRight(line, "\n")+"\n")
	}
}

// tools is what all demos start with.
type tools struct {
	cfg      Config
	root     string
	builder  *build.Builder
	binaries string
	tell     *teller
}

// prepare begins the story; what says what is run.
func prepare(cfg Config, what string) (*tools, error) {
	if os.Getuid() != 0 {
		return nil, ErrNotRoot
	}
	builder, err := build.Here(cfg.Getenv, cfg.Progress)
	if err != nil {
		return nil, err
	}
	t := &tools{cfg: cfg, root: builder.Root(), builder: builder, tell: &teller{out: cfg.Out}}
	_, _ = fmt.Fprintf(cfg.Out, "Postern puts secrets of an external store into a pod as files.\n%s\n", what)
	return t, nil
}

// prepareNode is prepare for a demo without a cluster.
func prepareNode(ctx context.Context, cfg Config) (*tools, error) {
	t, err := prepare(cfg, "This runs the real daemons of one node on this machine, and plays kubelet.")
	if err != nil {
		return nil, err
	}
	t.tell.title("Build the daemons from this tree")
	t.tell.say("the first time this takes a minute or two, then a second")
	t.binaries, err = t.builder.Daemons(ctx)
	return t, err
}

// mount is what the last steps of the demos without a cluster need.
type mount struct {
	node   *harness.Node
	traces *otlp.Receiver
	volume kubelet.Volume
	// complete tells whether the whole trace is there.
	complete func(otlp.Trace) bool
}

// startNode starts the daemons and says what each is.
func (t *tools) startNode(ctx context.Context, cfg harness.Config) (*harness.Node, error) {
	t.tell.title("Start them, each as its own user")
	cfg.Binaries = t.binaries
	node, err := harness.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	for _, daemon := range node.Daemons() {
		status, err := daemon.Status()
		if err != nil {
			return nil, errors.Join(err, node.Close())
		}
		uid, _, _ := strings.Cut(status["Uid"], " ")
		t.tell.say("%-24s pid %-7d uid %-6s %s", daemon.Name(), daemon.PID(), uid, role(daemon.Name()))
	}
	return node, nil
}

func role(name string) string {
	switch name {
	case "postern-driver":
		return "mounts volumes; knows no store"
	case "postern-gateway":
		return "routes, checks and traces fetches; no capabilities, no Kubernetes API"
	default:
		return "talks to one kind of store; no capabilities"
	}
}

// show publishes the volume, shows it and its trace, and unpublishes it,
// whatever happens in between.
func (t *tools) show(ctx context.Context, m mount) (err error) {
	t.tell.title("Publish the volume of pod %s/%s, as kubelet would", m.volume.Namespace, m.volume.Pod)
	defer func() {
		t.tell.title("Unpublish it, stop the daemons")
		err = errors.Join(err, m.node.Kubelet.Unpublish(context.WithoutCancel(ctx), m.volume))
	}()
	start := time.Now()
	if err := m.node.Kubelet.Publish(ctx, m.volume); err != nil {
		return fmt.Errorf("publish: %w\n\nthe daemons' logs:\n%s", err, m.node.Logs())
	}
	t.tell.say("NodePublishVolume: OK in %s", time.Since(start).Round(10*time.Microsecond))
	if err := t.showVolume(m); err != nil {
		return err
	}
	t.tell.title("The mount's trace: who did what, and how long it took")
	waiting, cancel := context.WithTimeout(ctx, traceTimeout)
	defer cancel()
	trace, err := m.traces.Wait(waiting, m.complete)
	if err != nil {
		return err
	}
	for line := range strings.Lines(trace.Tree()) {
		t.tell.say("%s", strings.TrimRight(line, "\n"))
	}
	if t.cfg.Pause {
		t.pause(ctx, m)
	}
	return nil
}

// showVolume prints the files as the application finds them, and the mount.
func (t *tools) showVolume(m mount) error {
	t.tell.title("What the application finds (the contents are the demo's own: nothing of this is secret)")
	files, err := m.node.Kubelet.Files(m.volume)
	if err != nil {
		return err
	}
	target := m.node.Kubelet.Target(m.volume)
	entries, err := os.ReadDir(target)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		link, err := os.Readlink(target + "/" + entry.Name())
		if err == nil && !strings.HasPrefix(entry.Name(), "..") {
			t.tell.say("%s -> %s", entry.Name(), link)
		}
	}
	for _, name := range sortedNames(files) {
		file := files[name]
		t.tell.say("%s %d:%d %-16s %q", file.Mode, file.UID, file.GID, name, file.Contents)
	}
	mounts, err := kubelet.Mounts(target)
	if err != nil {
		return err
	}
	for _, line := range mounts {
		t.tell.say("%s", line)
	}
	return nil
}

func (t *tools) pause(ctx context.Context, m mount) {
	t.tell.title("Paused: look around, then press Ctrl-C")
	t.tell.say("volume    %s", m.node.Kubelet.Target(m.volume))
	t.tell.say("logs      %s", m.node.Path("log"))
	for _, daemon := range m.node.Daemons() {
		t.tell.say("metrics   http://%s/metrics  %s", daemon.Admin, daemon.Name())
	}
	<-ctx.Done()
}

// end says that nothing is left, if the story came to its end and that is so.
func (t *tools) end(err error) error {
	if err == nil {
		t.tell.say("no process, no mount and no directory is left")
	}
	return err
}
