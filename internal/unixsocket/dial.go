package unixsocket

import (
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// DialConfig says how to talk to the process behind a socket.
type DialConfig struct {
	// RequireUID decides about the uid of the process that listens: an error
	// refuses the connection before anything is sent. Nil accepts everybody.
	RequireUID func(uid uint32) error
	// MaxMessageBytes is the largest message either way. Default
	// DefaultMaxMessageBytes.
	MaxMessageBytes int
	// Options come after, and so win over, those that Dial sets itself.
	Options []grpc.DialOption
}

// Dial returns a client for the socket at path. Like grpc.NewClient it does not
// connect yet: the first call does. A socket that is not there, or that belongs
// to a uid that is refused, fails that call with Unavailable. Reconnects are
// tried after 50 ms and then at most a second apart, since the other end is on
// the same node and comes back within moments.
func Dial(path string, cfg DialConfig) (*grpc.ClientConn, error) {
	if err := validatePath(path); err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	size := cfg.MaxMessageBytes
	if size == 0 {
		size = DefaultMaxMessageBytes
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(&transport{requireUID: cfg.RequireUID, path: path}),
		grpc.WithAuthority("localhost"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(size), grpc.MaxCallSendMsgSize(size)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
	}
	// The path is part of a URL there, so "%" and "?" need their escapes.
	target := "unix:" + (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath()
	conn, err := grpc.NewClient(target, append(options, cfg.Options...)...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", path, err)
	}
	return conn, nil
}
