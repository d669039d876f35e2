// Command postern-provider-vault serves secrets of HashiCorp Vault and OpenBao
// to the pods of a node.
package main

import (
	"os"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/providers/vault"
)

func main() { os.Exit(sdk.Main(vault.Definition())) }
