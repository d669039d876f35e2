package pods_test

import (
	"strings"
	"testing"
)

// TestPods is all tests of one cluster. The first ones share it; each of the
// others changes Postern or the node, so they come one after the other.
func TestPods(t *testing.T) {
	t.Logf("measured: set-up: %s", strings.Join(shared.took, ", "))
	t.Run("Together", func(t *testing.T) {
		for _, test := range []struct {
			name string
			run  func(*testing.T)
		}{
			{"WalkThrough", testWalkThrough},
			{"NonRoot", testNonRoot},
			{"SeveralVolumes", testSeveralVolumes},
			{"StatefulSet", testStatefulSet},
			{"NodePublishSecret", testNodePublishSecret},
			{"V1Alpha1", testV1Alpha1},
			{"ClassMissing", testClassMissing},
			{"ClassOfAnotherNamespace", testClassOfAnotherNamespace},
			{"NothingIsLeft", testNothingIsLeft},
			{"OneTrace", testOneTrace},
			{"RepublishWhileRefreshFails", testRepublishWhileRefreshFails},
		} {
			t.Run(test.name, test.run)
		}
	})
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"ProviderInstalledLater", testProviderInstalledLater},
		{"HelmTest", testHelmTest},
		{"Policy", testPolicy},
		{"AWS", testAWS},
		{"Azure", testAzure},
		{"GCP", testGCP},
		{"Refresh", testRefresh},
		{"Outage", testOutage},
		{"Sync", testSync},
		{"Measure", testMeasure},
		{"UpgradeProvider", testUpgradeProvider},
		{"UpgradeGateway", testUpgradeGateway},
		{"UpgradeDriver", testUpgradeDriver},
		{"Reboot", testReboot},
		{"HotSwap", testHotSwap},
	} {
		t.Run(test.name, test.run)
	}
}

// testHelmTest runs what "helm test" runs for a user: a pod that mounts a secret.
func testHelmTest(t *testing.T) {
	dumpIfFailed(t, system)
	must(t, shared.postern.Upgrade(t.Context(), "provider-file.enabled=true"))
	out, err := shared.postern.Helm(t.Context(), "test", "postern", "--namespace", system, "--timeout", "3m", "--logs")
	must(t, err)
	if !strings.Contains(out, "OK: helm-test is mounted") || !strings.Contains(out, "Phase:          Succeeded") {
		t.Errorf("helm test printed\n%s", out)
	}
}
