// Command postern-provider-aws serves secrets of AWS Secrets Manager and
// parameters of the SSM Parameter Store to the pods of a node.
package main

import (
	"os"

	"github.com/postern-dev/postern/providers/aws"
	"github.com/postern-dev/postern/providers/sdk"
)

func main() { os.Exit(sdk.Main(aws.Definition())) }
