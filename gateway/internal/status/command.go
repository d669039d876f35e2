package status

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/postern-dev/postern/internal/daemon"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// Name and Summary of the command, for the help of the gateway.
const (
	Name    = "status"
	Summary = "print how a running gateway is: providers, budgets, stores, kept answers, policy"
)

const (
	// defaultAddr is where the gateway's --metrics-addr is by default.
	defaultAddr = "127.0.0.1:8096"
	// askTimeout bounds the whole call.
	askTimeout = 10 * time.Second
	// maxReport is far more than a report has, and maxReason than a refusal has.
	maxReport = 64 << 20
	maxReason = 4 << 10
)

// formats are the values of -o.
const (
	formatTable = "table"
	formatJSON  = "json"
)

// options are the command's flags.
type options struct {
	addr, format string
}

func (o *options) flags() *daemon.Flags {
	f := daemon.NewFlags("postern-gateway "+Name, "Prints how a running gateway is.")
	f.Group("Output")
	f.String(&o.addr, "addr", defaultAddr, "`host:port` of the gateway's admin server, its --metrics-addr")
	f.String(&o.format, "o", formatTable, "`format`: table for people, json for machines")
	return f
}

// Command asks the gateway at --addr how it is, and prints that to env.Stdout.
func Command(ctx context.Context, env daemon.Env) error {
	var o options
	if err := o.flags().Parse(env); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(o.addr)
	switch {
	case err != nil:
		return misused("--addr: %q is not host:port", o.addr)
	case o.format != formatTable && o.format != formatJSON:
		return misused("-o: %q is neither %s nor %s", o.format, formatTable, formatJSON)
	case host == "":
		host = "127.0.0.1" // as the gateway's flag has it
	}
	encoded, err := ask(ctx, net.JoinHostPort(host, port))
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if o.format == formatJSON {
		err = json.Indent(&out, encoded, "", "  ")
		out.WriteByte('\n')
	} else {
		var report gatewayv1.StatusResponse
		// A newer gateway may tell more than this program knows of.
		if err = (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(encoded, &report); err == nil {
			err = table(&out, &report, time.Now())
		}
	}
	if err != nil {
		return fmt.Errorf("read what %s answers: %w", o.addr, err)
	}
	if _, err := out.WriteTo(env.Stdout); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func misused(format string, args ...any) error {
	return &daemon.UsageError{Err: fmt.Errorf(format, args...), Program: "postern-gateway " + Name}
}

// ask returns the report of the gateway at an address.
func ask(ctx context.Context, addr string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+Path, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask the gateway: %w", err)
	}
	// No proxy of the environment: nobody else is asked.
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("ask the gateway at %s: %w (does it run here, and is this its --metrics-addr?)", addr, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		reason, _ := io.ReadAll(io.LimitReader(resp.Body, maxReason)) // what there is of it
		return nil, fmt.Errorf("ask the gateway at %s: %s: %s", addr, resp.Status, printable(strings.TrimSpace(string(reason))))
	}
	encoded, err := io.ReadAll(io.LimitReader(resp.Body, maxReport+1))
	if err == nil && len(encoded) > maxReport {
		err = errors.New("the answer does not end")
	}
	if err != nil {
		return nil, fmt.Errorf("ask the gateway at %s: %w", addr, err)
	}
	return encoded, nil
}
