package aws

import (
	"fmt"
	"io/fs"
	"sync"
	"testing"
)

// What ASCP gets wrong and users have learned to live with is right here. Other
// tests have the rest: TestFailover that the second region is not always asked,
// TestErrors that an error of jmesPath says what it is, TestPodIdentity that IPv6
// is tried, and package identity that FIPS endpoints are those of STS, too.

// ASCP keeps the default mode in a variable of the process, where mounts that come
// at once overwrite it.
func TestUpstream_DefaultModeOfTheProcess(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	n.secret("a", "canary-a", nil)
	var pods sync.WaitGroup
	for i := range 20 {
		pods.Go(func() {
			req := n.request(oneSecret)
			req.VolumeID, req.DefaultFileMode = fmt.Sprint(i), fs.FileMode(0o400+i)
			resp := n.fetchOK(req)
			// Zero is the request's own default.
			if mode := resp.Files[0].Mode; mode != 0 {
				t.Errorf("pod %d: mode %o", i, mode)
			}
			if got := refreshed(req, resp); !n.fetchOK(got).NotModified {
				t.Errorf("pod %d: the version is of another mode", i)
			}
		})
	}
	pods.Wait()
}

// ASCP matches parameters by name alone: of two labels of one parameter in one
// request, both files get one value.
func TestUpstream_TwoLabelsOfOneParameter(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	n.parameter("p", "canary-blue", map[string]any{"labels": []string{"blue"}})
	n.parameter("p", "canary-green", map[string]any{"labels": []string{"green"}})
	n.parameter("p", "canary-newest", nil)
	before := n.calls()
	n.wantFiles(n.request(`
- {objectName: /NS/p, objectType: ssmparameter, objectVersionLabel: blue, objectAlias: blue}
- {objectName: /NS/p, objectType: ssmparameter, objectVersionLabel: green, objectAlias: green}
- {objectName: /NS/p, objectType: ssmparameter, objectAlias: newest}
- {objectName: /NS/p, objectType: ssmparameter, objectVersion: "1", objectAlias: first}
`), map[string]string{"blue": "canary-blue", "green": "canary-green", "newest": "canary-newest", "first": "canary-blue"})
	if calls := since(before, n.calls()); calls["GetParameters"] != 1 {
		t.Errorf("calls %v, want one for all", calls)
	}
}
