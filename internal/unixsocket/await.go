package unixsocket

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"time"
)

// awaitInterval is the time between two tries of Await.
const awaitInterval = 100 * time.Millisecond

// Await is Listen for a directory that another process makes, and gives to this
// one: as long as it is not there, or may not be written to, Await tries again,
// until ctx ends. It tells waiting why, once per reason.
func Await(ctx context.Context, cfg ListenConfig, waiting func(why error)) (net.Listener, error) {
	ticker := time.NewTicker(awaitInterval)
	defer ticker.Stop()
	told := ""
	for {
		l, err := Listen(ctx, cfg)
		if err == nil || (!errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission)) {
			return l, err
		}
		if err.Error() != told {
			told = err.Error()
			waiting(err)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-ticker.C:
		}
	}
}
