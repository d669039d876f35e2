package check

import (
	"fmt"
	"io"
	"strings"
)

// shownFiles is how many changed files a report names.
const shownFiles = 8

// Write writes the report for people.
func (r *Report) Write(w io.Writer) error {
	var out strings.Builder
	for _, set := range r.Sets {
		set.write(&out)
	}
	if len(r.Problems) > 0 {
		out.WriteString("These do not fit together:\n")
		for _, problem := range r.Problems {
			out.WriteString("  - " + problem + "\n")
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func (s Set) write(out *strings.Builder) {
	fmt.Fprintf(out, "%s %s: %s\n", s.Name, s.Version, s.state())
	for _, tag := range s.Tags {
		row(out, "tag", tag.Name+" "+tagState(tag))
	}
	for _, module := range s.Modules {
		row(out, "module", module)
	}
	for _, image := range s.Images {
		row(out, "image", image)
	}
	for _, chart := range s.Charts {
		switch {
		case chart.Dir == chart.Top:
			row(out, "chart", fmt.Sprintf("%s-%s.tgz, appVersion %s", chart.Name, chart.Version, chart.AppVersion))
		case !chart.Library:
			row(out, "subchart", fmt.Sprintf("%s of %s, appVersion %s", chart.Name, chart.Top, chart.AppVersion))
		}
	}
	if s.Last != "" {
		s.writeChanged(out)
	}
	out.WriteString("\n")
}

// state is what there is to do.
func (s Set) state() string {
	switch {
	case s.Last == "" && !s.Released():
		return fmt.Sprintf("to be released for the first time, %s", files(len(s.Changed)))
	case !s.Released():
		return fmt.Sprintf("to be released, %s changed since %s", files(len(s.Changed)), s.Last)
	case len(s.Changed) == 0:
		return "released, unchanged since"
	}
	return fmt.Sprintf("released, %s changed since: raise its version to release what is new", files(len(s.Changed)))
}

func files(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}

func (s Set) writeChanged(out *strings.Builder) {
	for i, file := range s.Changed {
		if i == shownFiles {
			row(out, "changed", fmt.Sprintf("... and %d more: git diff --stat %s", len(s.Changed)-shownFiles, s.Last))
			return
		}
		row(out, "changed", file)
	}
}

func tagState(t Tag) string {
	if t.Commit == "" {
		return "(to be made)"
	}
	return "(exists, on " + t.Commit[:min(12, len(t.Commit))] + ")"
}

func row(out *strings.Builder, what, value string) {
	fmt.Fprintf(out, "  %-9s %s\n", what, value)
}
