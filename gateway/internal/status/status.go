// Package status tells people and machines how the gateway is: a page of the
// admin server, and the command that reads and prints it. Both have what
// GatewayService.Status answers, which names neither objects nor values.
package status

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// Path is where the admin server has the page.
const Path = "/debug/status"

// reportTimeout bounds how long it may take to make a report.
const reportTimeout = 3 * time.Second

// refusal is what all others read. Which namespaces use which stores is their
// business alone.
const refusal = "only callers inside the gateway's pod are told: use kubectl exec, or kubectl port-forward and an address of localhost\n"

// Handler serves what get returns, as JSON, to callers inside the pod: kubectl
// exec and kubectl port-forward are such, other pods and the node are not.
func Handler(get func(context.Context) (*gatewayv1.StatusResponse, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Cache-Control", "no-store")
		header.Set("X-Content-Type-Options", "nosniff")
		switch {
		case r.Method != http.MethodGet:
			header.Set("Allow", http.MethodGet)
			answer(w, http.StatusMethodNotAllowed, "only GET is answered\n")
			return
		case !fromInside(r):
			answer(w, http.StatusForbidden, refusal)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), reportTimeout)
		defer cancel()
		report, err := get(ctx)
		if err != nil {
			answer(w, http.StatusServiceUnavailable, err.Error()+"\n")
			return
		}
		encoded, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(report)
		if err != nil {
			answer(w, http.StatusInternalServerError, err.Error()+"\n")
			return
		}
		header.Set("Content-Type", "application/json")
		_, _ = w.Write(encoded) // a client that is gone needs no answer
	})
}

// answer says in words why there is no report.
func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text) // a client that is gone needs no answer
}

// fromInside tells whether a request comes from the pod itself. Both ends have to
// be loopback addresses: a proxy in the pod that passes on what it is sent may
// come from one, but calls the pod's own address. And the host asked for has to
// be this one, or a web page could ask through the browser of somebody who
// forwards the port, under a name of its own that leads here.
func fromInside(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok || !loopback(local.String()) || !loopback(r.RemoteAddr) {
		return false
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host // without a port
	}
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// loopback tells whether an address, with a port, is this host's own.
func loopback(address string) bool {
	addr, err := netip.ParseAddrPort(address)
	return err == nil && addr.Addr().IsLoopback()
}
