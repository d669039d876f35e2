// Command postern-provider-bench is the provider that drivers are compared by.
package main

import (
	"os"

	"github.com/postern-dev/postern/providers/sdk"
	"github.com/postern-dev/postern/test/bench/provider"
)

func main() { os.Exit(sdk.Main(provider.Definition())) }
