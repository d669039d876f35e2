// Command postern-provider-gcp serves secrets of Google Cloud's Secret Manager and
// parameters of its Parameter Manager to the pods of a node.
package main

import (
	"os"

	"github.com/postern-dev/postern/providers/gcp"
	"github.com/postern-dev/postern/providers/sdk"
)

func main() { os.Exit(sdk.Main(gcp.Definition())) }
