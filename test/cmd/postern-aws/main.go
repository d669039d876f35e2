// Postern-aws is a test double of AWS; test/aws/README.md has its control API.
package main

import (
	"context"
	"flag"
	"os"

	"github.com/postern-dev/postern/test/aws"
	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/double"
)

func main() { os.Exit(program().Main(context.Background())) }

func program() double.Program {
	var cfg aws.Config
	return double.Program{
		Name: "postern-aws",
		Flags: func(flags *flag.FlagSet) {
			flags.StringVar(&cfg.Listen, "listen", "127.0.0.1:0", "`address` of the AWS endpoint")
			flags.StringVar(&cfg.Control, "control", "127.0.0.1:0", "`address` of the control API")
			flags.StringVar(&cfg.PodIdentity, "pod-identity", "127.0.0.1:0", "`address` of the Pod Identity agent, or off")
			flags.StringVar(&cfg.PodIdentity6, "pod-identity6", "", "its second `address`, such as [::1]:0")
			flags.StringVar(&cfg.Account, "account", "", "`account` of names that say none (111122223333)")
			flags.StringVar(&cfg.Partition, "partition", "", "`partition` of ARNs (aws)")
			flags.StringVar(&cfg.STSUpstream, "sts-upstream", "", "`URL` of a MinIO that verifies web identity tokens")
			flags.StringVar(&cfg.STSUpstreamRole, "sts-upstream-role", "", "MinIO's own role `ARN`")
		},
		Start: func(ctx context.Context, with double.Given) (double.Running, error) {
			cfg.Logger = with.Logger
			for _, issuer := range with.Issuers {
				cfg.Issuers = append(cfg.Issuers, control.Issuer{
					URL: issuer.URL, JWKS: issuer.JWKS, JWKSURL: issuer.JWKSURL, CAPEM: issuer.CAPEM, BearerToken: issuer.BearerToken,
				})
			}
			server, err := aws.Start(ctx, cfg)
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
