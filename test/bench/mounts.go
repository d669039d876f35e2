package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"

	"github.com/postern-dev/postern/test/bench/provider"
	"github.com/postern-dev/postern/test/kubelet"
)

// How kubelet tries again: after 0.5 s, and twice as long each time.
const (
	retryFirst = 500 * time.Millisecond
	retryLast  = 2*time.Minute + 2*time.Second
)

// unpublishAtOnce is how many volumes are taken away at once.
const unpublishAtOnce = 32

// run is what became of a number of calls.
type run struct {
	// total is from the first call's start to the last one's end.
	total time.Duration
	// took is how long each volume took, from its first call to the end of its
	// last, sorted.
	took []time.Duration
	// failed calls, and the first failure of those that were not cured.
	failed int
	err    error
}

// quantile of the volumes' times: the smallest that is not less than a share q
// of them.
func (r run) quantile(q float64) time.Duration {
	if len(r.took) == 0 {
		return 0
	}
	return r.took[max(0, int(math.Ceil(q*float64(len(r.took))))-1)]
}

// publish publishes volumes, some at once, each with one call. Kubelet's own
// work, the directories above the targets and the requests, is done before.
func (s *side) publish(ctx context.Context, volumes []kubelet.Volume, atOnce int) run {
	requests := make(map[string]*csi.NodePublishVolumeRequest, len(volumes))
	for _, v := range volumes {
		requests[v.UID] = s.kubelet.Request(v)
		if err := os.MkdirAll(filepath.Dir(s.kubelet.Target(v)), 0o750); err != nil {
			return run{err: fmt.Errorf("make the directory of %s's volume: %w", v.Pod, err)}
		}
	}
	runtime.GC() // of this program, not while it measures
	return forEach(volumes, atOnce, func(v kubelet.Volume) (failed int, err error) {
		ctx, cancel := context.WithTimeout(ctx, kubelet.Timeout)
		defer cancel()
		if _, err := s.kubelet.NodePublishVolume(ctx, requests[v.UID]); err != nil {
			return 1, fmt.Errorf("publish %s: %w", v.Pod, err)
		}
		return 0, nil
	})
}

// publishUntilMounted publishes all volumes at once, and those that fail again
// as kubelet does, until the driver says of each that it is published.
func (s *side) publishUntilMounted(ctx context.Context, volumes []kubelet.Volume) run {
	return forEach(volumes, len(volumes), func(v kubelet.Volume) (failed int, err error) {
		for delay := retryFirst; ; delay = min(2*delay, retryLast) {
			err := s.kubelet.Publish(ctx, v)
			if err == nil {
				return failed, nil
			}
			failed++
			if wait(ctx, delay) != nil {
				return failed, fmt.Errorf("publish %s until it is mounted: %w", v.Pod, err)
			}
		}
	})
}

// forEach calls do for each volume, for some at once, and measures.
func forEach(volumes []kubelet.Volume, atOnce int, do func(kubelet.Volume) (failed int, err error)) run {
	r := run{took: make([]time.Duration, len(volumes))}
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(atOnce)
	start := time.Now()
	for i, v := range volumes {
		group.Go(func() error {
			began := time.Now()
			failed, err := do(v)
			r.took[i] = time.Since(began)
			mu.Lock()
			defer mu.Unlock()
			r.failed += failed
			if r.err == nil {
				r.err = err
			}
			return nil // the others go on
		})
	}
	_ = group.Wait() // errors are in r
	r.total = time.Since(start)
	slices.Sort(r.took)
	return r
}

// unpublish takes volumes away, and again where the driver fails, as kubelet
// does.
func (s *side) unpublish(ctx context.Context, volumes []kubelet.Volume) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return forEach(volumes, unpublishAtOnce, func(v kubelet.Volume) (failed int, err error) {
		for {
			err := s.kubelet.Unpublish(ctx, v)
			if err == nil {
				return failed, nil
			}
			failed++
			if wait(ctx, retryFirst) != nil {
				return failed, fmt.Errorf("unpublish %s: %w", v.Pod, err)
			}
		}
	}).err
}

// errForeign says that a volume holds what is not its own, which would end any
// comparison.
var errForeign = errors.New("holds another account's secret")

// empty counts volumes that do not hold their secret.
func (s *side) empty(volumes []kubelet.Volume) (int, error) {
	n := 0
	for _, v := range volumes {
		files, err := s.kubelet.Files(v)
		switch {
		case err != nil || files[provider.File].Contents == "":
			n++ // not there at all, or a directory without a file
		case files[provider.File].Contents != provider.Content(v.Namespace, v.ServiceAccount):
			return n, fmt.Errorf("volume of %s %w", v.Pod, errForeign)
		}
	}
	return n, nil
}

// complete fails unless each volume holds its secret.
func (s *side) complete(volumes []kubelet.Volume) error {
	n, err := s.empty(volumes)
	if err == nil && n > 0 {
		err = fmt.Errorf("%d of %d volumes are empty", n, len(volumes))
	}
	return err
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
