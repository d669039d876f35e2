package sdk_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-dev/postern/providers/sdk"
)

func TestPaths(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		claims []string // the last one's problem is wanted; one with "*" is a pattern
		want   string
	}{
		"one":                               {[]string{"a"}, ""},
		"two":                               {[]string{"a", "b"}, ""},
		"the same":                          {[]string{"a", "b", "a"}, `"a" is already the file of claim 0`},
		"side by side":                      {[]string{"d/a", "d/b"}, ""},
		"a file where there is a directory": {[]string{"d/e/a", "d"}, `"d" is already a directory of claim 0`},
		"the directory nearer to it":        {[]string{"d/e/a", "d/e"}, `"d/e" is already a directory of claim 0`},
		"a directory where there is a file": {[]string{"b", "d", "d/a"}, `"d" is already the file of claim 1, and cannot be a directory too`},
		"further up":                        {[]string{"d", "d/e/f/a"}, `"d" is already the file of claim 0, and cannot be a directory too`},
		"a pattern and a file of its":       {[]string{"d/a", "d/*"}, ""},
		"two patterns":                      {[]string{"d/*", "d/*.txt"}, ""},
		"a pattern in a file":               {[]string{"d", "d/x-*"}, `"d" is already the file of claim 0, and cannot be a directory too`},
		"a file where a pattern is":         {[]string{"d/e/*", "d"}, `"d" is already a directory of claim 0`},
		"a pattern's unknown directory":     {[]string{"x-*/a", "x-1"}, ""},
		"a pattern of everything":           {[]string{"a", "*"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			paths := sdk.NewPaths()
			for i, claim := range tt.claims {
				field := fmt.Sprintf("claim %d", i)
				take, want := paths.Claim, ""
				if strings.Contains(claim, "*") {
					take = paths.ClaimPattern
				}
				if i == len(tt.claims)-1 {
					want = tt.want
				}
				if got := take(claim, field); got != want {
					t.Errorf("claim %q: %q, want %q", claim, got, want)
				}
			}
		})
	}
}
