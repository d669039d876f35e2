package service

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/postern-dev/postern/internal/rpc"
	"github.com/postern-dev/postern/internal/unixsocket"
)

// failure is what the driver is told: the reason and details as they came, the
// text prefixed with the provider's name once, and for which SPC it was.
func failure(err error, provider, spc string) error {
	e := *rpc.FromError(err)
	if e.Reason == "" && e.Code == codes.Unknown {
		e.Reason, e.Code = rpc.ReasonInternal, codes.Internal
	}
	e.Err = err
	prefix := fmt.Sprintf("provider %q: ", provider)
	e.Message = prefix + strings.TrimPrefix(e.Message, prefix)
	e.Metadata = maps.Clone(e.Metadata)
	if e.Metadata == nil {
		e.Metadata = map[string]string{}
	}
	e.Metadata[rpc.MetadataProvider] = provider
	if spc != "" {
		e.Metadata[rpc.MetadataSecretProviderClass] = spc
	}
	return &e
}

// Authorize returns the check of callers: only these uids may call. The server
// says whom it refused.
func Authorize(uids []uint32) func(ctx context.Context, peer unixsocket.Peer, method string) error {
	allowed := slices.Clone(uids)
	return func(_ context.Context, peer unixsocket.Peer, _ string) error {
		if slices.Contains(allowed, peer.UID) {
			return nil
		}
		return fmt.Errorf("only uids %v may call the gateway, see --allowed-uids", allowed)
	}
}
