package publish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-dev/postern/driver/internal/podstatus"
	"github.com/postern-dev/postern/driver/internal/sleep"
	"github.com/postern-dev/postern/internal/logkey"
)

const (
	// waitNoticeDelay is how long a pod waits before its users are told.
	waitNoticeDelay = 5 * time.Second
	// podCheckInterval is how often a waiting call asks whether its pod still
	// exists.
	podCheckInterval = 10 * time.Second
)

var errPodGone = errors.New("the pod is gone")

// watchWait watches over a call that may wait: it tells the pod's users after
// a while, and cancels the call when the pod is gone.
func (t *transaction) watchWait(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if !sleep.For(ctx, waitNoticeDelay) {
			return
		}
		t.noticeWait(ctx)
		for sleep.For(ctx, podCheckInterval) {
			if t.podGone(ctx) {
				cancel(errPodGone)
				return
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}

func (t *transaction) noticeWait(ctx context.Context) {
	if t.publisher.cfg.Gateway.Connected() {
		t.warn(ctx, podstatus.ReasonWaitingForProvider, fmt.Sprintf("waiting for an answer of provider %q; "+
			"check that its pod runs on this node, and whether its store answers", t.provider))
		return
	}
	t.warn(ctx, podstatus.ReasonWaitingForGateway, "waiting for the gateway of this node; check that its pod runs")
}

// podGone tells whether the API server says so; if it cannot be asked, the
// call's deadline is what ends the wait.
func (t *transaction) podGone(ctx context.Context) bool {
	cluster, pod := t.publisher.cfg.Cluster, t.request.Pod
	if cluster == nil {
		return false
	}
	exists, err := cluster.PodExists(ctx, pod.Namespace, pod.Name, pod.UID)
	if err != nil {
		t.publisher.cfg.Logger.DebugContext(ctx, "cannot tell whether the pod still exists", logkey.Error, err)
		return false
	}
	return !exists
}
