package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// protocol is what gRPC calls the security protocol of these credentials.
const protocol = "unix"

// Peer is the process at the other end of a connection, as the kernel saw it:
// for a server the one that connected, at that time; for a client the one that
// listened, at that time.
type Peer struct {
	// PID is 0 if the process is not visible from this one's PID namespace.
	PID      int32
	UID, GID uint32
}

// AuthInfo is what gRPC keeps of a connection whose peer is known. It is a
// credentials.AuthInfo.
type AuthInfo struct {
	credentials.CommonAuthInfo
	Peer Peer
}

// AuthType implements credentials.AuthInfo.
func (AuthInfo) AuthType() string { return protocol }

// unknownPeer is the AuthInfo where the system or the connection has no peer
// credentials.
type unknownPeer struct{ credentials.CommonAuthInfo }

func (unknownPeer) AuthType() string { return protocol }

// CredentialsConfig says whom to talk to.
type CredentialsConfig struct {
	// RequireUID decides about the peer's uid: an error refuses the
	// connection, and so does a peer that is not known. Nil accepts everybody.
	RequireUID func(uid uint32) error
}

// Credentials returns transport credentials for the gRPC servers and clients of
// unix sockets. They encrypt nothing: what is sent stays in the kernel.
func Credentials(cfg CredentialsConfig) credentials.TransportCredentials {
	return &transport{requireUID: cfg.RequireUID}
}

// PeerFromContext returns the peer of the call that ctx belongs to. It is false
// where the peer is not known: outside of a call, over another transport, and on
// systems without SO_PEERCRED.
func PeerFromContext(ctx context.Context) (Peer, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Peer{}, false
	}
	info, ok := p.AuthInfo.(AuthInfo)
	return info.Peer, ok
}

type transport struct {
	requireUID func(uid uint32) error
	// path, if known, stands in for the name the peer's socket was bound to,
	// which is not where it is.
	path string
}

var _ credentials.TransportCredentials = (*transport)(nil)

// ClientHandshake implements credentials.TransportCredentials. Nothing is sent.
func (t *transport) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	info, err := t.identify(conn)
	if err != nil {
		return nil, nil, err
	}
	if t.path != "" {
		conn = namedConn{Conn: conn, path: t.path}
	}
	return conn, info, nil
}

// ServerHandshake implements credentials.TransportCredentials. Nothing is sent.
func (t *transport) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	info, err := t.identify(conn)
	if err != nil {
		return nil, nil, err
	}
	return conn, info, nil
}

func (t *transport) identify(conn net.Conn) (credentials.AuthInfo, error) {
	// As for gRPC's own local credentials: a unix socket cannot be tapped.
	common := credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
	p, err := peerOf(conn)
	switch {
	case errors.Is(err, errNoPeer) && t.requireUID == nil:
		return unknownPeer{CommonAuthInfo: common}, nil
	case err != nil:
		return nil, fmt.Errorf("read the peer's credentials: %w", err)
	case t.requireUID != nil:
		if err := t.requireUID(p.UID); err != nil {
			return nil, fmt.Errorf("peer with uid %d refused: %w", p.UID, err)
		}
	}
	return AuthInfo{CommonAuthInfo: common, Peer: p}, nil
}

// Info implements credentials.TransportCredentials.
func (t *transport) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: protocol}
}

// Clone implements credentials.TransportCredentials.
func (t *transport) Clone() credentials.TransportCredentials {
	c := *t
	return &c
}

// OverrideServerName implements credentials.TransportCredentials. The peer has
// no name to verify.
func (t *transport) OverrideServerName(string) error { return nil }

// namedConn is a connection whose remote address is where the socket is.
type namedConn struct {
	net.Conn
	path string
}

func (c namedConn) RemoteAddr() net.Addr { return &net.UnixAddr{Name: c.path, Net: "unix"} }

// errNoPeer says that a connection has no peer credentials.
var errNoPeer = errors.New("not available for this connection")
