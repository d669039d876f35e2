// Package tunnel is a listener of the connections that clients make through a proxy,
// which can be closed and frozen.
package tunnel

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
)

// Listener gives a server the connections of tunnels.
//
// Invariants:
//  1. Once done is closed nothing is put into accepted.
//  2. Open has the tunnels that nobody closed.
type Listener struct {
	accepted chan net.Conn
	once     sync.Once
	done     chan struct{}

	mu   sync.Mutex
	open map[*Tunnel]bool
	last int
}

var _ net.Listener = (*Listener)(nil)

// NewListener returns one without tunnels.
func NewListener() *Listener {
	return &Listener{accepted: make(chan net.Conn), done: make(chan struct{}), open: map[*Tunnel]bool{}}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case connection := <-l.accepted:
		return connection, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (*Listener) Addr() net.Addr { return &net.TCPAddr{} }

// Connect makes a tunnel to a host of the connection of a CONNECT request.
func (l *Listener) Connect(w http.ResponseWriter, host string) error {
	connection, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	if _, err := connection.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n")); err != nil {
		return errors.Join(err, connection.Close())
	}
	t := &Tunnel{Conn: connection, listener: l, sent: buffered.Reader, Host: host}
	l.mu.Lock()
	l.last++
	t.Number, l.open[t] = l.last, true
	l.mu.Unlock()
	select {
	case l.accepted <- t:
		return nil
	case <-l.done:
		return t.Close()
	}
}

// Each does something with the tunnels to a host, or with all for "", and returns
// how many there are.
func (l *Listener) Each(host string, do func(*Tunnel)) int {
	var meant []*Tunnel
	l.mu.Lock()
	for t := range l.open {
		if host == "" || t.Host == host {
			meant = append(meant, t)
		}
	}
	l.mu.Unlock()
	for _, t := range meant {
		do(t)
	}
	return len(meant)
}

// Tunnel is a connection to a host, of which the client may have sent something
// already.
type Tunnel struct {
	net.Conn

	// Host is what the client wanted.
	Host string
	// Number is one of its own.
	Number int

	listener *Listener
	sent     *bufio.Reader

	mu     sync.Mutex
	frozen bool
}

// Freeze has it be silent: what is sent to it is lost, and so is what it sends.
func (t *Tunnel) Freeze() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.frozen = true
}

func (t *Tunnel) isFrozen() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.frozen
}

// Read implements net.Conn.
func (t *Tunnel) Read(b []byte) (int, error) {
	for {
		n, err := t.sent.Read(b)
		if err != nil || !t.isFrozen() {
			return n, err
		}
	}
}

// Write implements net.Conn.
func (t *Tunnel) Write(b []byte) (int, error) {
	if t.isFrozen() {
		return len(b), nil
	}
	return t.Conn.Write(b)
}

// Close implements net.Conn.
func (t *Tunnel) Close() error {
	t.listener.mu.Lock()
	delete(t.listener.open, t)
	t.listener.mu.Unlock()
	return t.Conn.Close()
}

// key is where a request's context has its tunnel.
type key struct{}

// Keep is for http.Server's ConnContext: it keeps the tunnel, inside TLS.
func Keep(ctx context.Context, connection net.Conn) context.Context {
	if wrapped, ok := connection.(*tls.Conn); ok {
		connection = wrapped.NetConn()
	}
	if t, ok := connection.(*Tunnel); ok {
		return context.WithValue(ctx, key{}, t)
	}
	return ctx
}

// Of returns the tunnel of a request's context.
func Of(ctx context.Context) (*Tunnel, bool) {
	t, ok := ctx.Value(key{}).(*Tunnel)
	return t, ok
}
