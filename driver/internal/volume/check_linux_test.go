package volume

import (
	"context"
	"errors"
	"testing"
)

func TestManager_Check(t *testing.T) {
	t.Parallel()
	for _, api := range apis {
		t.Run(api.name, func(t *testing.T) {
			t.Parallel()
			m, _ := api.manager(t)
			if err := m.Check(t.Context()); err != nil {
				t.Errorf("Check: %v", err)
			}
			mustHaveNoMounts(t, m)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := m.Check(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("Check with a context that ended: %v", err)
			}
		})
	}
}
