package store

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"cloud.google.com/go/parametermanager/apiv1/parametermanagerpb"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/test/bufconn"
)

// world is a network with Google in it, and a Store.
type world struct {
	*memoryGoogle
	store *Store

	net struct {
		sync.Mutex
		hosts map[string]*bufconn.Listener
		conns map[string][]*brokenConn
		// refuse, if any, keeps a host from being connected to.
		refuse func(host string) error
		// hang is how many connections are not made, nor refused.
		hang int
		// rename, if any, says whose certificate a host has.
		rename func(host string) string
		// web, if any, answers in place of the API.
		web http.Handler
	}
	stops []func()
}

// newWorld returns one that ends with the test. In a bubble of synctest it has to be
// made there.
func newWorld(t testing.TB, m *memoryGoogle, cfg Config) *world {
	t.Helper()
	w := &world{memoryGoogle: m}
	w.net.hosts = make(map[string]*bufconn.Listener)
	w.net.conns = make(map[string][]*brokenConn)
	ca := authority()
	cfg.DialOptions = append([]grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: ca.pool, MinVersion: tls.VersionTLS13})),
		grpc.WithResolvers(names{}),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return w.dial(ctx, address) }),
	}, cfg.DialOptions...)
	w.store = New(cfg)
	w.store.proofs.digest = quickDigest
	t.Cleanup(func() {
		w.store.Close()
		for _, stop := range w.stops {
			stop()
		}
	})
	return w
}

// quickDigest is for tests: the real one takes tenths of a second where races are
// looked for. Those of proofs and of the double have that.
func quickDigest(salt string, contents []byte) (string, error) {
	return fmt.Sprintf("%x", sha256.Sum256(append([]byte(salt), contents...))), nil
}

// dial connects to a host, which is there from then on.
func (w *world) dial(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port != "443" {
		return nil, fmt.Errorf("connect to %s: nobody is there", address)
	}
	w.net.Lock()
	defer w.net.Unlock()
	if w.net.hang > 0 {
		w.net.hang--
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if w.net.refuse != nil {
		if err := w.net.refuse(host); err != nil {
			return nil, err
		}
	}
	listener, ok := w.net.hosts[host]
	if !ok {
		listener = bufconn.Listen(64 << 10)
		w.net.hosts[host] = listener
		named := host
		if w.net.rename != nil {
			named = w.net.rename(host)
		}
		if w.net.web != nil {
			w.serveWeb(listener, host)
			return listener.DialContext(ctx)
		}
		served := grpc.NewServer(grpc.Creds(credentials.NewTLS(authority().config(named))))
		one := &server{m: w.memoryGoogle, host: host}
		secretmanagerpb.RegisterSecretManagerServiceServer(served, one)
		parametermanagerpb.RegisterParameterManagerServer(served, one)
		w.stops = append(w.stops, served.Stop)
		go func() { _ = served.Serve(listener) }()
	}
	conn, err := listener.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	broken := &brokenConn{Conn: conn, cut: make(chan struct{}), closed: make(chan struct{})}
	w.net.conns[host] = append(w.net.conns[host], broken)
	return broken, nil
}

// serveWeb has a host speak HTTP/2, but not gRPC.
func (w *world) serveWeb(listener net.Listener, host string) {
	cfg := authority().config(host)
	cfg.NextProtos = []string{"h2"}
	web := &http.Server{Handler: w.net.web}
	go func() { _ = web.Serve(tls.NewListener(listener, cfg)) }()
	w.stops = append(w.stops, func() { _ = web.Close() })
}

// connections is how many were made to a host.
func (w *world) connections(host string) int {
	w.net.Lock()
	defer w.net.Unlock()
	return len(w.net.conns[host])
}

// brokenConn is a connection that may stop to carry anything, as when a firewall has
// forgotten it.
type brokenConn struct {
	net.Conn
	once        sync.Once
	cut, closed chan struct{}
}

func (c *brokenConn) Write(b []byte) (int, error) {
	select {
	case <-c.cut:
		return len(b), nil // it is on its way for ever
	default:
		return c.Conn.Write(b)
	}
}

func (c *brokenConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	select {
	case <-c.cut:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (c *brokenConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// names resolves each name to itself, in place of DNS.
type names struct{}

func (names) Scheme() string { return "dns" }

func (names) Build(target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	return names{}, cc.UpdateState(resolver.State{Addresses: []resolver.Address{{Addr: target.Endpoint()}}})
}

func (names) ResolveNow(resolver.ResolveNowOptions) {}
func (names) Close()                                {}

// certificates is an authority of its own.
type certificates struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

var authority = sync.OnceValue(func() *certificates {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	ca := &certificates{key: key, pool: x509.NewCertPool()}
	ca.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, ca.cert, ca.cert, key.Public(), key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	ca.cert = cert
	ca.pool.AddCert(cert)
	return ca
})

// config is a server's, with a certificate for one host.
func (c *certificates) config(host string) *tls.Config {
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{host}, NotBefore: c.cert.NotBefore, NotAfter: c.cert.NotAfter,
	}, c.cert, c.key.Public(), c.key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: c.key}}, MinVersion: tls.VersionTLS13}
}

// bearer gives a token. It would also give it without TLS.
type bearer struct {
	identity string
	err      error
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + tokenOf + b.identity}, b.err
}
func (bearer) RequireTransportSecurity() bool { return false }

func as(identity string) As { return As{Credentials: bearer{identity: identity}, Identity: identity} }

// logged is a logger, and what it wrote.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// read reads refs, which must not end.
func (w *world) read(t testing.TB, as As, refs ...Ref) []Answer {
	t.Helper()
	answers, err := w.store.Read(t.Context(), as, refs)
	if err != nil {
		t.Fatal(err)
	}
	if len(answers) != len(refs) {
		t.Fatalf("%d answers to %d refs", len(answers), len(refs))
	}
	return answers
}

// refused reads one ref, which must fail with an Error.
func (w *world) refused(t testing.TB, as As, ref Ref) *Error {
	t.Helper()
	answer := w.read(t, as, ref)[0]
	if !answer.Contents.IsZero() || answer.Version != "" || answer.Ref != ref {
		t.Errorf("an answer that failed is %+v", answer)
	}
	return asError(t, answer.Err)
}

// asError checks that an error is an Error with nothing in it that is secret.
func asError(t testing.TB, err error) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("not an Error: %v", err)
	}
	for _, text := range []string{e.Error(), fmt.Sprintf("%v %+v %#v", e, e, *e), fmt.Sprint(e.Err)} {
		if strings.Contains(text, "canary") {
			t.Errorf("an error holds a secret: %s", text)
		}
	}
	if e.Message == "" || strings.ContainsAny(e.Message, "\r\n") || !utf8.ValidString(e.Message) {
		t.Errorf("a message that is empty, has lines or is no text: %q", e.Message)
	}
	return e
}
