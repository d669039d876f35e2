// Command postern-provider-azure serves secrets, keys and certificates of Azure
// Key Vault to the pods of a node.
package main

import (
	"os"

	"github.com/postern-dev/postern/providers/azure"
	"github.com/postern-dev/postern/providers/sdk"
)

func main() { os.Exit(sdk.Main(azure.Definition())) }
