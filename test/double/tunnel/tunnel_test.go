package tunnel_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"

	"github.com/postern-dev/postern/test/double/tunnel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open makes a tunnel to a host, and returns both ends.
func open(t *testing.T, l *tunnel.Listener, host string) (client, server net.Conn) {
	t.Helper()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := l.Connect(w, host); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(proxy.Close)
	client, err := new(net.Dialer).DialContext(t.Context(), "tcp", proxy.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	// What is sent right behind the request is the tunnel's already.
	if _, err := io.WriteString(client, "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\nfirst"); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	read(t, client, "HTTP/1.1 200 Connection established\r\n\r\n")
	read(t, server, "first")
	return client, server
}

func read(t *testing.T, from io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(from, got); err != nil || string(got) != want {
		t.Fatalf("%v: read %q, want %q", err, got, want)
	}
}

func write(t *testing.T, to io.Writer, text string) {
	t.Helper()
	if n, err := io.WriteString(to, text); n != len(text) || err != nil {
		t.Fatalf("%v: wrote %d of %q", err, n, text)
	}
}

func TestTunnel(t *testing.T) {
	t.Parallel()
	l := tunnel.NewListener()
	client, server := open(t, l, "one")
	write(t, client, "question")
	read(t, server, "question")
	write(t, server, "answer")
	read(t, client, "answer")
	open(t, l, "two")
	for host, want := range map[string]int{"": 2, "one": 1, "none": 0} {
		if got := l.Each(host, func(*tunnel.Tunnel) {}); got != want {
			t.Errorf("%d tunnels to %q, want %d", got, host, want)
		}
	}
	l.Each("one", func(end *tunnel.Tunnel) {
		if err := end.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
	if got := l.Each("", func(*tunnel.Tunnel) {}); got != 1 {
		t.Errorf("%d tunnels are left", got)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}

// Nothing comes through a tunnel that is frozen, but for its end.
func TestFreeze(t *testing.T) {
	t.Parallel()
	l := tunnel.NewListener()
	client, server := open(t, l, "one")
	l.Each("one", (*tunnel.Tunnel).Freeze)
	write(t, server, "lost")
	write(t, client, "lost")
	heard := make(chan error, 1)
	go func() {
		_, err := server.Read(make([]byte, 4))
		heard <- err
	}()
	if err := client.(*net.TCPConn).CloseWrite(); err != nil { //nolint:forcetypeassert // it is TCP's
		t.Fatal(err)
	}
	if err := <-heard; !errors.Is(err, io.EOF) {
		t.Errorf("the server hears %v", err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if n, err := client.Read(make([]byte, 4)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("the client hears %d bytes, %v", n, err)
	}
}
