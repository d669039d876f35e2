package fetch

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVolumes_Bounded(t *testing.T) {
	t.Parallel()
	v := newVolumes(3)
	for i := range 10 {
		v.asked("kept", "vault", uint64(i))
		v.asked(fmt.Sprint(i), "aws", 1)
	}
	if len(v.byID) != 3 {
		t.Errorf("%d volumes are remembered, want 3", len(v.byID))
	}
	if diff := cmp.Diff(map[string]uint32{"vault": 1, "aws": 2}, v.counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	// The one that is fetched again and again stays, with its last instances.
	kept, ok := v.released("kept")
	if diff := cmp.Diff([]uint64{2, 3, 4, 5, 6, 7, 8, 9}, kept.instances); !ok || diff != "" {
		t.Errorf("instances (-want +got):\n%s", diff)
	}
	if _, ok := v.released("kept"); ok {
		t.Error("a volume was released twice")
	}
	if diff := cmp.Diff(map[string]uint32{"aws": 2}, v.counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

// A volume id that comes back with another provider is another volume.
func TestVolumes_OtherProvider(t *testing.T) {
	t.Parallel()
	v := newVolumes(3)
	v.asked("v", "vault", 1)
	v.asked("v", "aws", 2)
	if diff := cmp.Diff(map[string]uint32{"aws": 1}, v.counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	got, _ := v.released("v")
	if diff := cmp.Diff([]uint64{2}, got.instances); diff != "" {
		t.Errorf("instances (-want +got):\n%s", diff)
	}
}
