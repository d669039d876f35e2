package trigger

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// classes are those of a cluster whose watches last until they are to end.
type classes struct {
	mu      sync.Mutex
	active  map[string]int // watches by namespace/name
	seen    map[string]func(map[string]string)
	started int
	twice   bool          // a class had two watches at a time
	linger  chan struct{} // if set, a watch ends only once it is closed
}

func newClasses() *classes {
	return &classes{active: make(map[string]int), seen: make(map[string]func(map[string]string))}
}

func (c *classes) WatchSecretProviderClass(ctx context.Context, namespace, name string, seen func(map[string]string)) {
	class := namespace + "/" + name
	c.mu.Lock()
	c.started++
	c.active[class]++
	c.twice = c.twice || c.active[class] > 1
	c.seen[class] = seen
	linger := c.linger
	c.mu.Unlock()
	<-ctx.Done()
	if linger != nil {
		<-linger
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active[class]--
	if c.active[class] == 0 {
		delete(c.active, class)
	}
}

// tell has the class's last watch see this value.
func (c *classes) tell(class, value string) {
	c.mu.Lock()
	seen := c.seen[class]
	c.mu.Unlock()
	seen(map[string]string{apiv1.AnnotationRefresh: value, "other": "x"})
}

// watched returns the classes that are, and how many watches there were.
func (c *classes) watched() (active map[string]int, started int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	active = make(map[string]int, len(c.active))
	for class, n := range c.active {
		active[class] = n
	}
	return active, c.started
}

// run runs a watcher until the test ends, and returns what it tells.
func run(t *testing.T, c *classes, before ...func(*Watcher)) (*Watcher, *[]string) {
	t.Helper()
	var told []string
	w, err := New(Config{
		Classes: c,
		Changed: func(namespace, name, value string) { told = append(told, namespace+"/"+name+"="+value) },
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range before {
		f(w)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if active, _ := c.watched(); len(active) > 0 {
			t.Errorf("Run is over, and these are watched: %v", active)
		}
	})
	return w, &told
}

func TestWatcher_FollowsVolumes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClasses()
		w, _ := run(t, c, func(w *Watcher) { w.Add("early", "shop", "db") })
		for _, step := range []struct {
			name    string
			do      func()
			active  []string
			started int
		}{
			{"added before Run", func() {}, []string{"shop/db"}, 1},
			{"another volume of the class", func() { w.Add("v1", "shop", "db") }, []string{"shop/db"}, 1},
			{"another class", func() { w.Add("v2", "shop", "api") }, []string{"shop/db", "shop/api"}, 2},
			{"its name in another namespace", func() { w.Add("v3", "bank", "db") }, []string{"shop/db", "shop/api", "bank/db"}, 3},
			{"added again", func() { w.Add("v3", "bank", "db") }, []string{"shop/db", "shop/api", "bank/db"}, 3},
			{"removed, though added twice", func() { w.Remove("v3") }, []string{"shop/db", "shop/api"}, 3},
			{"removed again", func() { w.Remove("v3") }, []string{"shop/db", "shop/api"}, 3},
			{"one that was never there", func() { w.Remove("v9") }, []string{"shop/db", "shop/api"}, 3},
			{"one of two", func() { w.Remove("early") }, []string{"shop/db", "shop/api"}, 3},
			{"has another class now, the last of the old one", func() { w.Add("v1", "shop", "api") }, []string{"shop/api"}, 3},
			{"the first of two", func() { w.Remove("v1") }, []string{"shop/api"}, 3},
			{"the last", func() { w.Remove("v2") }, nil, 3},
			{"used again", func() { w.Add("v2", "shop", "api") }, []string{"shop/api"}, 4},
		} {
			step.do()
			synctest.Wait()
			want := make(map[string]int)
			for _, class := range step.active {
				want[class] = 1
			}
			active, started := c.watched()
			if diff := cmp.Diff(want, active); diff != "" || started != step.started {
				t.Errorf("%s: %d watches so far, want %d; now (-want +got):\n%s", step.name, started, step.started, diff)
			}
		}
		w.Remove("v2")
		if len(w.volumes)+len(w.users) > 0 {
			t.Errorf("kept of volumes that are gone: %v, %v", w.volumes, w.users)
		}
	})
}

func TestWatcher_TellsTheAnnotation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClasses()
		w, told := run(t, c)
		w.Add("v1", "shop", "db")
		w.Add("v2", "shop", "api")
		synctest.Wait()
		c.tell("shop/db", "1")
		c.tell("shop/api", "x")
		c.tell("shop/db", "2")
		c.seen["shop/db"](nil) // without annotations
		want := []string{"shop/db=1", "shop/api=x", "shop/db=2", "shop/db="}
		if diff := cmp.Diff(want, *told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
		w.Remove("v1")
		synctest.Wait()
		c.tell("shop/db", "3")
		if diff := cmp.Diff(want, *told); diff != "" {
			t.Errorf("told of a class that nobody uses (-want +got):\n%s", diff)
		}
	})
}

// A class that is used again while its watch still ends is watched after that.
func TestWatcher_OneWatchAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClasses()
		linger := make(chan struct{})
		c.linger = linger
		w, told := run(t, c)
		w.Add("v1", "shop", "db")
		synctest.Wait()
		w.Remove("v1")
		synctest.Wait()
		w.Add("v2", "shop", "db")
		synctest.Wait()
		if _, started := c.watched(); started != 1 {
			t.Errorf("%d watches, want the second only when the first is over", started)
		}
		c.tell("shop/db", "old")
		close(linger)
		synctest.Wait()
		c.tell("shop/db", "new")
		if active, started := c.watched(); active["shop/db"] != 1 || started != 2 {
			t.Errorf("%d watches of %d are active, want 1 of 2", active["shop/db"], started)
		}
		if diff := cmp.Diff([]string{"shop/db=new"}, *told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}

// What changes while Run is busy is looked at after that.
func TestWatcher_RemembersToLook(t *testing.T) {
	t.Parallel()
	w, err := New(Config{Classes: newClasses(), Changed: func(string, string, string) {}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name   string
		change func()
	}{
		{"a class is used", func() { w.Add("v1", "shop", "db") }},
		{"another is used instead", func() { w.Add("v1", "shop", "api") }},
		{"none is used", func() { w.Remove("v1") }},
	} {
		step.change()
		select {
		case <-w.wake:
		default:
			t.Errorf("%s: nothing wakes Run", step.name)
		}
	}
}

func TestWatcher_ConcurrentSafe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClasses()
		w, _ := run(t, c)
		const kubelets, volumes, calls = 8, 10, 200
		want := make([]map[string]string, kubelets)
		var done sync.WaitGroup
		for k := range kubelets {
			want[k] = make(map[string]string)
			done.Go(func() {
				for range calls {
					volume := fmt.Sprintf("k%d-v%d", k, rand.N(volumes))
					if rand.N(3) == 0 {
						w.Remove(volume)
						delete(want[k], volume)
						continue
					}
					name := fmt.Sprintf("class%d", rand.N(5))
					w.Add(volume, "shop", name)
					want[k][volume] = "shop/" + name
				}
			})
		}
		done.Wait()
		synctest.Wait()
		used := make(map[string]int)
		for _, volumes := range want {
			for _, class := range volumes {
				used[class] = 1
			}
		}
		active, _ := c.watched()
		if diff := cmp.Diff(used, active); diff != "" {
			t.Errorf("watched (-want +got):\n%s", diff)
		}
		if c.twice {
			t.Error("a class had two watches at a time")
		}
	})
}

func TestNew_Incomplete(t *testing.T) {
	t.Parallel()
	whole := Config{Classes: newClasses(), Changed: func(string, string, string) {}, Logger: slog.New(slog.DiscardHandler)}
	for name, remove := range map[string]func(*Config){
		"classes": func(c *Config) { c.Classes = nil },
		"changed": func(c *Config) { c.Changed = nil },
		"logger":  func(c *Config) { c.Logger = nil },
	} {
		cfg := whole
		remove(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("without %s: no error", name)
		}
	}
}
