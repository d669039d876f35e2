// Package ports finds TCP ports for servers that cannot choose one themselves.
package ports

import (
	"context"
	"fmt"
	"net"
)

// Free returns n different ports of 127.0.0.1 that nobody listened on a moment
// ago. They are taken all at once, so that they differ.
func Free(ctx context.Context, n int) ([]int, error) {
	found := make([]int, 0, n)
	for range n {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer func() { _ = listener.Close() }() //nolint:gocritic // all are held until all are found
		address, ok := listener.Addr().(*net.TCPAddr)
		if !ok {
			return nil, fmt.Errorf("find a free port: the listener's address is %s", listener.Addr())
		}
		found = append(found, address.Port)
	}
	return found, nil
}
