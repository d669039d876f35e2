package bench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Print writes the report for a terminal.
func (r *Report) Print(w io.Writer) {
	for _, result := range r.Results {
		_, _ = fmt.Fprintf(w, "\n%s: %s\n", result.Name, result.Title)
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintf(table, "\t%s\t%s\tratio\ttarget\tmet\n", upstreamName, posternName)
		for _, m := range result.Measures {
			_, _ = fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\t%s\n", m.Name, m.format(m.Upstream), m.format(m.Postern), m.Ratio(), m.Target, m.Verdict())
		}
		_ = table.Flush() // to a terminal
		for _, note := range result.Notes {
			_, _ = fmt.Fprintf(w, "  %s\n", note)
		}
	}
	_, _ = fmt.Fprintf(w, "\n%s\n%s\n", r.Machine, r.summary())
}

// summary says how many targets are met.
func (r *Report) summary() string {
	missed := r.Missed()
	targets := 0
	for _, result := range r.Results {
		for _, m := range result.Measures {
			if m.Target != "" {
				targets++
			}
		}
	}
	if len(missed) == 0 {
		return fmt.Sprintf("All %d targets are met.", targets)
	}
	return fmt.Sprintf("%d of %d targets are missed: %s.", len(missed), targets, strings.Join(missed, "; "))
}

// Markdown returns the report as a document.
func (r *Report) Markdown() string {
	var b strings.Builder
	_, _ = fmt.Fprintf(&b, `# Benchmarks

Postern beside the upstream Secrets Store CSI driver %s, in one run of
`+"`make bench`"+` (root), which writes this page. Both get the same calls from the same
program in kubelet's place, with the same etcd and kube-apiserver on the same
machine, and call the same provider: its store is made up, takes %s for an
answer and counts its calls. All processes share the machine's cores, the program
in kubelet's place too. All that is written is on a tmpfs, so that no disk is
compared. One driver runs after the other; each scenario starts both anew, and
mounts one volume first that does not count.

%s.
%s, it took %s. %s

`, strings.TrimPrefix(upstreamName, "upstream "), formatDuration(full().latency), r.Machine,
		r.Started.UTC().Format("2 January 2006"), r.Took.Round(time.Second), r.summary())
	if r.Quick {
		b.WriteString("This was a quick run, with a few volumes each: its figures mean nothing.\n\n")
	}
	_, _ = fmt.Fprintf(&b, "| | %s | %s | ratio | target | met |\n|---|--:|--:|--:|--:|---|\n", upstreamName, posternName)
	for _, result := range r.Results {
		_, _ = fmt.Fprintf(&b, "| **%s** | | | | | |\n", result.Title)
		for _, m := range result.Measures {
			_, _ = fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", m.Name, m.format(m.Upstream), m.format(m.Postern), m.Ratio(), m.Target, m.Verdict())
		}
	}
	b.WriteString("\nThe ratio says how many times Postern's figure is in upstream's: more is better. Targets are for two cores.\n\n## What was done\n")
	for _, result := range r.Results {
		_, _ = fmt.Fprintf(&b, "\n**%s** (`--only %s`). %s\n", capitalize(result.Title), result.Name, result.About)
		if len(result.Notes) > 0 {
			_, _ = fmt.Fprintf(&b, "Counted: %s\n", strings.Join(result.Notes, " "))
		}
	}
	return b.String()
}

func capitalize(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
