// Postern-gcp is a test double of Google Cloud; test/gcp/README.md has its control API.
package main

import (
	"context"
	"flag"
	"os"

	"github.com/postern-dev/postern/test/double"
	"github.com/postern-dev/postern/test/gcp"
	"github.com/postern-dev/postern/test/gcp/control"
)

func main() { os.Exit(program().Main(context.Background())) }

func program() double.Program {
	var cfg gcp.Config
	return double.Program{
		Name: "postern-gcp",
		Flags: func(flags *flag.FlagSet) {
			flags.StringVar(&cfg.Proxy, "proxy", "127.0.0.1:0", "`address` of the proxy, for HTTPS_PROXY")
			flags.StringVar(&cfg.Control, "control", "127.0.0.1:0", "`address` of the control API")
			flags.StringVar(&cfg.Metadata, "metadata", "127.0.0.1:0", "`address` of the metadata server, for GCE_METADATA_HOST, or off")
			flags.StringVar(&cfg.CAFile, "ca-file", "", "`file` to write the certificate of its authority to")
		},
		Start: func(ctx context.Context, with double.Given) (double.Running, error) {
			cfg.Logger = with.Logger
			cfg.Issuers = with.Issuers
			server, err := gcp.Start(ctx, cfg)
			if err != nil {
				return double.Running{}, err
			}
			return double.Running{Addresses: server.Addresses, Close: server.Close, Seed: func(document []byte) error {
				d, err := control.ReadDocument(document)
				if err == nil {
					_, err = server.Apply(d)
				}
				return err
			}}, nil
		},
	}
}
