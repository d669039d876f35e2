package e2e_test

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
)

// notForUs are the specs of csi-sanity that cannot apply, with the reason. All
// others must pass.
func notForUs() map[string]string {
	return map[string]string{
		`\[Controller Server\]`:     "inline volumes have no controller",
		`\[GroupController`:         "as above",
		"should remove target path": "publishes a volume that a controller created",
		"should fail when volume does not exist on the specified path": "as above",
		"should work if node-expand is called after node-publish":      "as above",
		"should return health for a valid volume":                      "as above",
		"Node Service should work":                                     "as above",
		"Node Service should be idempotent":                            "as above",
		"with single node multi writer capability":                     "as above",
	}
}

// TestSanity runs the CSI project's own conformance tests against the driver.
func TestSanity(t *testing.T) { //nolint:paralleltest // ginkgo keeps one global tree
	if flag.Lookup("test.count").Value.String() != "1" {
		t.Skip("ginkgo ends the process when its specs are run twice")
	}
	n := startNode(t)
	config := sanity.NewTestConfig()
	config.Address = n.Socket()
	config.TargetPath = n.Path("kubelet/pods/sanity/mount")
	config.StagingPath = n.Path("kubelet/pods/sanity/staging")
	for _, dir := range []string{config.TargetPath, config.StagingPath} {
		must(t, os.MkdirAll(filepath.Dir(dir), 0o750))
	}
	context := sanity.GinkgoTest(&config)
	suite, reporter := ginkgo.GinkgoConfiguration()
	suite.SkipStrings = slices.Sorted(maps.Keys(notForUs()))
	reporter.Succinct, reporter.NoColor = true, true
	gomega.RegisterFailHandler(ginkgo.Fail)
	if !ginkgo.RunSpecs(t, "csi-sanity", suite, reporter) {
		t.Error("csi-sanity failed")
	}
	context.Finalize()
	must(t, os.RemoveAll(n.Path("kubelet/pods/sanity")))
}
