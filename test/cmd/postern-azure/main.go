// Postern-azure is a test double of Azure; test/azure/README.md has its control API.
package main

import (
	"context"
	"flag"
	"os"

	"github.com/postern-dev/postern/test/azure"
	"github.com/postern-dev/postern/test/azure/control"
	"github.com/postern-dev/postern/test/double"
)

func main() { os.Exit(program().Main(context.Background())) }

func program() double.Program {
	var cfg azure.Config
	return double.Program{
		Name: "postern-azure",
		Flags: func(flags *flag.FlagSet) {
			flags.StringVar(&cfg.Proxy, "proxy", "127.0.0.1:0", "`address` of the proxy, for HTTPS_PROXY")
			flags.StringVar(&cfg.Control, "control", "127.0.0.1:0", "`address` of the control API")
			flags.StringVar(&cfg.IMDS, "imds", "127.0.0.1:0", "`address` of the instance metadata service, or off")
			flags.StringVar(&cfg.NMI, "nmi", "127.0.0.1:0", "`address` of NMI, or off")
			flags.StringVar(&cfg.TokenProxy, "token-proxy", "127.0.0.1:0", "`address` of AKS' token proxy, or off")
			flags.StringVar(&cfg.CAFile, "ca-file", "", "`file` to write the certificate of its authority to")
		},
		Start: func(ctx context.Context, with double.Given) (double.Running, error) {
			cfg.Logger = with.Logger
			cfg.Issuers = with.Issuers
			server, err := azure.Start(ctx, cfg)
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
