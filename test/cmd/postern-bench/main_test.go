package main

import (
	"errors"
	"flag"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	o, err := parse([]string{"--only", "storm,empty", "--quick", "--check", "--out", "table.md"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.cfg.Only, []string{"storm", "empty"}) || !o.cfg.Quick || !o.check || o.out != "table.md" {
		t.Errorf("parse() = %+v", o)
	}
	if _, err := parse([]string{"storm"}); err == nil || !strings.Contains(err.Error(), `"storm"`) {
		t.Errorf("parse(storm) = %v, want it to say what is wrong", err)
	}
	if _, err := parse([]string{"--help"}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("parse(--help) = %v, want flag.ErrHelp", err)
	}
}

// Only a whole run writes the document, unless it is told where to.
func TestOptions_Document(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"":                      "/repo/docs/benchmarks.md",
		"--check":               "/repo/docs/benchmarks.md",
		"--only storm":          "",
		"--quick":               "",
		"--quick --out here.md": "here.md",
	} {
		o, err := parse(strings.Fields(args))
		if err != nil {
			t.Fatal(err)
		}
		if got := o.document("/repo"); got != want {
			t.Errorf("%q writes %q, want %q", args, got, want)
		}
	}
}
