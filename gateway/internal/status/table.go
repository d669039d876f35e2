package status

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"google.golang.org/protobuf/types/known/timestamppb"

	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// maxCell is how many characters of a cell are shown. Messages are longer, and
// the last of their line.
const (
	maxCell    = 80
	maxMessage = 300
)

// table prints a report for people. Parts that have nothing to say are left out.
func table(w io.Writer, report *gatewayv1.StatusResponse, now time.Time) error {
	p := printer{now: now}
	fmt.Fprintf(&p.out, "postern-gateway %s\n", printable(report.GetVersion()))
	for _, part := range []func(*gatewayv1.StatusResponse){p.providers, p.budgets, p.stores, p.cache, p.flights, p.policy} {
		part(report)
	}
	_, err := p.out.WriteTo(w)
	return err
}

// printer collects what is printed.
type printer struct {
	out bytes.Buffer
	now time.Time
}

// rows prints a part: a title, and below it the rows, the first of which has the
// columns' names. The last cells of a row may be left out.
func (p *printer) rows(title string, rows [][]string) {
	var aligned bytes.Buffer
	columns := tabwriter.NewWriter(&aligned, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(rows[0])) // tabwriter aligns only lines of as many cells
		for i, cell := range row {
			cells[i] = printable(cell)
		}
		fmt.Fprintln(columns, strings.Join(cells, "\t"))
	}
	_ = columns.Flush() // a buffer takes everything
	fmt.Fprintf(&p.out, "\n%s\n", title)
	for line := range strings.Lines(aligned.String()) {
		p.out.WriteString("  " + strings.TrimRight(line, " \n") + "\n")
	}
}

func (p *printer) providers(report *gatewayv1.StatusResponse) {
	rows := [][]string{{"NAME", "STATE", "VERSION", "PROTOCOL", "CONNECTED", "SOCKET", "MESSAGE"}}
	for _, provider := range report.GetProviders() {
		if len(provider.GetInstances()) == 0 {
			rows = append(rows, []string{provider.GetName(), "absent", "-", "-", "-", "-"})
		}
		for _, instance := range provider.GetInstances() {
			rows = append(rows, []string{
				provider.GetName(), word(instance.GetState().String(), "STATE_"), dash(instance.GetVersion()),
				protocol(instance.GetProtocol()), p.age(instance.GetConnectedAt()), instance.GetSocket(),
				cut(instance.GetMessage(), maxMessage),
			})
		}
	}
	if len(rows) == 1 {
		fmt.Fprintf(&p.out, "\nProviders\n  none has a socket on this node\n")
		return
	}
	p.rows("Providers", rows)
}

func (p *printer) budgets(report *gatewayv1.StatusResponse) {
	rows := [][]string{{"PROVIDER", "VOLUMES", "FETCHES", "CALLS", "QUEUED", "RATE", "REFUSED"}}
	for _, provider := range report.GetProviders() {
		budget := provider.GetBudget()
		rate := "no limit"
		if budget.GetMaxRate() > 0 {
			rate = strconv.FormatFloat(budget.GetMaxRate(), 'g', -1, 64) + "/s"
		}
		rows = append(rows, []string{
			provider.GetName(), count(provider.GetVolumes()), count(provider.GetInFlight()),
			of(budget.GetCalls(), budget.GetMaxCalls()), of(budget.GetQueued(), budget.GetMaxQueued()),
			rate, count(budget.GetRefused()),
		})
	}
	if len(rows) > 1 {
		p.rows("Budgets", rows)
	}
}

// stores prints those that are not simply asked.
func (p *printer) stores(report *gatewayv1.StatusResponse) {
	rows := [][]string{{"PROVIDER", "STORE", "STATE", "CALLS", "FAILURES", "REASON", "RETRY IN"}}
	for _, provider := range report.GetProviders() {
		for _, store := range provider.GetStores() {
			if store.GetState() == gatewayv1.StoreStatus_STATE_CLOSED {
				continue
			}
			rows = append(rows, []string{
				provider.GetName(), dash(cut(store.GetStore(), maxCell)), word(store.GetState().String(), "STATE_"),
				of(store.GetCalls(), store.GetMaxCalls()), count(store.GetFailures()), dash(store.GetReason()), p.until(store.GetRetryAt()),
			})
		}
	}
	if len(rows) > 1 {
		p.rows("Stores in trouble", rows)
	}
}

func (p *printer) cache(report *gatewayv1.StatusResponse) {
	c := report.GetCache()
	asked := c.GetHits() + c.GetJoins() + c.GetMisses()
	p.rows("Kept answers", [][]string{
		{"ANSWERS", "MEMORY", "HITS", "JOINS", "MISSES", "STALE", "EVICTED"},
		{
			count(c.GetEntries()), size(c.GetBytes()) + " of " + size(c.GetMaxBytes()),
			share(c.GetHits(), asked), share(c.GetJoins(), asked), share(c.GetMisses(), asked),
			count(c.GetStale()), count(c.GetEvictions()),
		},
	})
}

func (p *printer) flights(report *gatewayv1.StatusResponse) {
	rows := [][]string{{"PROVIDER", "NAMESPACE", "SERVICE ACCOUNT", "SECRETPROVIDERCLASS", "POD UID", "WAITERS", "FOR"}}
	for _, f := range report.GetFlights() {
		rows = append(rows, []string{
			f.GetProvider(), f.GetNamespace(), f.GetServiceAccount(), f.GetSecretProviderClass(),
			dash(f.GetPodUid()), count(f.GetWaiters()), p.age(f.GetStartedAt()),
		})
	}
	if len(rows) > 1 {
		p.rows("Fetches under way", rows)
	}
}

func (p *printer) policy(report *gatewayv1.StatusResponse) {
	policy := report.GetPolicy()
	fmt.Fprintf(&p.out, "\nPolicy\n")
	if len(policy.GetRules()) == 0 {
		fmt.Fprintf(&p.out, "  no rules: every fetch is allowed\n")
	} else {
		fmt.Fprintf(&p.out, "  in force for %s: %s\n", p.age(policy.GetLoadedAt()), printable(strings.Join(policy.GetRules(), ", ")))
	}
	if why := policy.GetError(); why != "" {
		fmt.Fprintf(&p.out, "  the file has other rules, which are not in force: %s\n", printable(cut(why, maxMessage)))
	}
}

// age is how long ago something was, until how long it takes until it is.
func (p *printer) age(at *timestamppb.Timestamp) string {
	if at == nil {
		return "-"
	}
	return duration(p.now.Sub(at.AsTime()))
}

func (p *printer) until(at *timestamppb.Timestamp) string {
	if at == nil {
		return "-"
	}
	return duration(at.AsTime().Sub(p.now))
}

// duration has the two largest units; clocks that differ make no negative ones.
func duration(d time.Duration) string {
	const day = 24 * time.Hour
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	}
}

func count[N uint32 | uint64](n N) string { return strconv.FormatUint(uint64(n), 10) }

func of(n, most uint32) string { return count(n) + "/" + count(most) }

// share is a number and what part of all it is.
func share(n, all uint64) string {
	if all == 0 {
		return count(n)
	}
	return fmt.Sprintf("%d (%.0f%%)", n, 100*float64(n)/float64(all))
}

func size(bytes uint64) string {
	const kib, mib = 1 << 10, 1 << 20
	switch {
	case bytes < kib:
		return count(bytes) + " B"
	case bytes < mib:
		return fmt.Sprintf("%.1f KiB", float64(bytes)/kib)
	default:
		return fmt.Sprintf("%.1f MiB", float64(bytes)/mib)
	}
}

// word is an enum's value as people read it.
func word(value, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(value, prefix)), "_", " ")
}

// protocol is the name of the protocol's package.
func protocol(p gatewayv1.Instance_Protocol) string {
	switch p {
	case gatewayv1.Instance_PROTOCOL_PROVIDER_V1:
		return "provider.v1"
	case gatewayv1.Instance_PROTOCOL_CSI_V1ALPHA1:
		return "v1alpha1"
	default:
		return "-"
	}
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func cut(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

// printable replaces what a terminal would obey instead of show: names of stores
// and messages are made by others.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		default:
			return unicode.ReplacementChar
		}
	}, text)
}
