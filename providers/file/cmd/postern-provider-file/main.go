// Command postern-provider-file serves the files below a directory to pods.
package main

import (
	"os"

	"github.com/postern-dev/postern/providers/file"
	"github.com/postern-dev/postern/providers/sdk"
)

func main() { os.Exit(sdk.Main(file.Definition())) }
