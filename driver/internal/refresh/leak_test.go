package refresh

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// Nothing is kept of a volume that was removed, also while it was refreshed.
func TestSchedule_ForgetsWhatIsRemoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		running := make(chan struct{})
		s, err := NewSchedule(func(context.Context, string) { <-running })
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		s.Set("under way", "vault", time.Now())
		s.Set("waits", "vault", time.Now().Add(time.Hour))
		synctest.Wait()
		s.Remove("under way")
		s.Remove("waits")
		close(running)
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if len(s.volumes) != 0 || len(s.running) != 0 {
			t.Errorf("kept: %v, running: %v", s.volumes, s.running)
		}
	})
}
