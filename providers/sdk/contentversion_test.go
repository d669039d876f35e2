package sdk_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

func TestContentVersions(t *testing.T) {
	t.Parallel()
	of := func(salt, contents string) string {
		v, err := sdk.NewContentVersions().Of(salt, []byte(contents)) // a new one each time: another process
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	one := of("object", "canary")
	if again := of("object", "canary"); again != one {
		t.Errorf("%q in one process, %q in another", one, again)
	}
	for name, other := range map[string]string{
		"contents": of("object", "other"), "salt": of("other", "canary"), "where they meet": of("objectc", "anary"),
	} {
		if other == one {
			t.Errorf("another %s is the same version", name)
		}
	}
	if strings.Contains(one, "canary") || strings.Contains(one, "object") || len(one) > 40 {
		t.Errorf("version %q tells something", one)
	}
}

// What is remembered is what would be made, for the salt it was made with.
func TestContentVersions_Remembers(t *testing.T) {
	t.Parallel()
	versions := sdk.NewContentVersions()
	want, err := versions.Of("object", []byte("canary"))
	if err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			if got, err := versions.Of("object", []byte("canary")); err != nil || got != want {
				t.Errorf("%q, %v; want %q", got, err, want)
			}
			if got, err := versions.Of("objectc", []byte("anary")); err != nil || got == want {
				t.Errorf("another object has the version %q (%v)", got, err)
			}
		})
	}
	readers.Wait()
}

// BenchmarkContentVersions measures what a guess costs.
func BenchmarkContentVersions(b *testing.B) {
	for b.Loop() {
		if _, err := sdk.NewContentVersions().Of("object", []byte("canary")); err != nil {
			b.Fatal(err)
		}
	}
}
