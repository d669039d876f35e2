package gateway

import (
	"testing"
	"testing/synctest"
	"time"

	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

func TestDescriptions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d descriptions
		if _, ok := d.recent("vault"); ok {
			t.Error("something is known of a provider that nobody asked")
		}
		d.keep("vault", &providerv1.DescribeResponse{Version: "1"})
		<-time.After(describedFor - 1)
		if got, ok := d.recent("vault"); !ok || got.GetVersion() != "1" {
			t.Errorf("got %v, %t", got, ok)
		}
		if _, ok := d.recent("aws"); ok {
			t.Error("one provider's description is another's")
		}
		<-time.After(1)
		if _, ok := d.recent("vault"); ok {
			t.Error("a description that is old is taken for current")
		}
		d.keep("aws", &providerv1.DescribeResponse{})
		if len(d.byProvider) != 1 {
			t.Errorf("%d descriptions are kept, want 1", len(d.byProvider))
		}
	})
}
