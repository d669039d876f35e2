package fetch

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/gateway/internal/key"
)

func TestVolumes_Bounded(t *testing.T) {
	t.Parallel()
	v := newVolumes(3, func(key.Key, time.Duration) {})
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
	v := newVolumes(3, func(key.Key, time.Duration) {})
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

// A key is used until its last volume is released, has another key, is served
// what is not kept, or makes room.
func TestVolumes_Use(t *testing.T) {
	t.Parallel()
	one, two := key.Key{Provider: "vault"}, key.Key{Provider: "aws"}
	tests := map[string]func(v *volumes){
		"released":         func(v *volumes) { v.released("b") },
		"another key":      func(v *volumes) { v.servedKept("b", "vault", two, time.Hour) },
		"not kept":         func(v *volumes) { v.served("b", "vault") },
		"another provider": func(v *volumes) { v.asked("b", "aws", 1) },
		"no room": func(v *volumes) {
			for i := range 3 {
				v.asked(fmt.Sprint(i), "vault", 1)
			}
		},
	}
	for name, end := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			unused := map[key.Key][]time.Duration{}
			v := newVolumes(3, func(k key.Key, keep time.Duration) { unused[k] = append(unused[k], keep) })
			v.servedKept("a", "vault", one, time.Second)
			v.servedKept("b", "vault", one, time.Minute)
			v.servedKept("b", "vault", one, 2*time.Minute)
			v.asked("b", "vault", 1)
			v.released("a")
			if len(unused) > 0 {
				t.Errorf("%v is unused though a volume has it", unused)
			}
			end(v)
			if diff := cmp.Diff(map[key.Key][]time.Duration{one: {2 * time.Minute}}, unused); diff != "" {
				t.Errorf("unused (-want +got):\n%s", diff)
			}
			if _, ok := v.uses[one]; ok {
				t.Error("the use is still there")
			}
		})
	}
}
