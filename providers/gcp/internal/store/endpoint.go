package store

import (
	"crypto/tls"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"cloud.google.com/go/parametermanager/apiv1/parametermanagerpb"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/postern-dev/postern/providers/gcp/internal/params"
)

const (
	// maxEndpoints bounds the connections: locations come from SecretProviderClasses.
	maxEndpoints = 64
	// maxAnswer is how large an answer may be. A parameter's has what is stored, of up
	// to 1 MiB, and what that becomes; a volume takes 4 MiB.
	maxAnswer = 8 << 20
	// pingEvery is how often a connection with requests under way is tried. A first
	// ping goes with a request that follows a time without any. gRPC takes no less.
	pingEvery = 10 * time.Second
	// pingTimeout is how long one that does not answer is kept: a firewall may have
	// forgotten it, and neither side knows.
	pingTimeout = 5 * time.Second
	// dialTimeout is how long one connection may take to be made.
	dialTimeout = 5 * time.Second
	// idleTimeout is when a connection is closed that nobody uses. Refreshes come more
	// often.
	idleTimeout = 10 * time.Minute
)

// locationSyntax is a DNS label, as long as locations may be.
var locationSyntax = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$`)

var (
	errClosed   = errors.New("the store is closed")
	errLocation = errors.New("the location is none, such as europe-west3")
	errKind     = errors.New("it is neither a secret nor a parameter")
)

// endpoints has a connection to each host that is read from.
//
// Its invariants:
//  1. A connection has no credentials: each request brings its own. All identities
//     share it.
//  2. Hosts are Google's, and of a location's only that part is not ours. It is a DNS
//     label.
//  3. At most maxEndpoints are kept. The one not used for longest goes, and is closed
//     when nobody uses it any more. So are all after close.
type endpoints struct {
	options []grpc.DialOption

	mu     sync.Mutex
	closed bool
	byKey  map[endpointKey]*endpoint
}

// endpointKey says which service and where.
type endpointKey struct {
	kind     params.Kind
	location string
}

// endpoint is one host's.
type endpoint struct {
	key        endpointKey
	host       string
	conn       *grpc.ClientConn
	secrets    secretmanagerpb.SecretManagerServiceClient
	parameters parametermanagerpb.ParameterManagerClient
	// The rest is the endpoints' own.
	used    time.Time
	users   int
	dropped bool
}

func newEndpoints(added []grpc.DialOption) *endpoints {
	return &endpoints{
		options: slices.Concat([]grpc.DialOption{
			grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout}),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: dialTimeout}),
			grpc.WithIdleTimeout(idleTimeout),
			grpc.WithDisableServiceConfig(),
			grpc.WithDisableRetry(),
		}, added),
		byKey: make(map[endpointKey]*endpoint),
	}
}

// host is the name that an endpoint's certificate must be for.
func (k endpointKey) host() (string, error) {
	service := map[params.Kind]string{params.Secret: "secretmanager", params.Parameter: "parametermanager"}[k.kind]
	switch {
	case service == "":
		return "", errKind
	case k.location == "":
		return service + ".googleapis.com", nil
	case !locationSyntax.MatchString(k.location):
		return "", errLocation
	default:
		return service + "." + k.location + ".rep.googleapis.com", nil
	}
}

// enter returns an endpoint, to be left again. A connection is made by its first
// request.
func (e *endpoints) enter(key endpointKey) (*endpoint, error) {
	host, err := key.host()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	one, surplus, err := e.find(key, host)
	e.mu.Unlock()
	surplus.close()
	return one, err
}

// find returns an endpoint, and one to be closed.
func (e *endpoints) find(key endpointKey, host string) (one, surplus *endpoint, err error) {
	if e.closed {
		return nil, nil, errClosed
	}
	one, ok := e.byKey[key]
	if !ok {
		conn, err := grpc.NewClient(host+":443", e.options...)
		if err != nil {
			return nil, nil, fmt.Errorf("prepare a connection to %s: %w", host, err)
		}
		one = &endpoint{
			key: key, host: host, conn: conn,
			secrets:    secretmanagerpb.NewSecretManagerServiceClient(conn),
			parameters: parametermanagerpb.NewParameterManagerClient(conn),
		}
		surplus = e.makeRoom()
		e.byKey[key] = one
	}
	one.users++
	one.used = time.Now()
	return one, surplus, nil
}

// makeRoom forgets the endpoint not used for longest, if there are too many, and
// returns it if it is to be closed at once.
func (e *endpoints) makeRoom() *endpoint {
	if len(e.byKey) < maxEndpoints {
		return nil
	}
	var oldest *endpoint
	for _, one := range e.byKey {
		if oldest == nil || one.used.Before(oldest.used) {
			oldest = one
		}
	}
	delete(e.byKey, oldest.key)
	oldest.dropped = true
	if oldest.users > 0 {
		return nil
	}
	return oldest
}

func (e *endpoints) leave(one *endpoint) {
	e.mu.Lock()
	one.users--
	last := one.users == 0 && one.dropped
	e.mu.Unlock()
	if last {
		one.close()
	}
}

// close closes all, also those in use.
func (e *endpoints) close() {
	e.mu.Lock()
	all := e.byKey
	e.closed, e.byKey = true, nil
	e.mu.Unlock()
	for _, one := range all {
		one.close()
	}
}

// close closes the connection, if there is one.
func (e *endpoint) close() {
	if e != nil {
		_ = e.conn.Close() // the error is that it is closed already
	}
}
