package policy

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/postern-dev/postern/gateway/internal/policy/rules"
)

// The attributes of what is measured. The first is bounded by the file's rules.
const (
	ruleKey    = attribute.Key("rule")
	outcomeKey = attribute.Key("outcome")
)

// Outcomes of a reload.
const (
	outcomeOK     = "ok"
	outcomeFailed = "failed"
)

// metrics counts what rules find, and tells which are in force.
type metrics struct {
	denials, audits, reloads metric.Int64Counter
}

// newMetrics makes the instruments; what can be observed is asked of status.
func newMetrics(meter metric.Meter, status func() Status) (*metrics, error) {
	var m metrics
	var errs [5]error
	m.denials, errs[0] = meter.Int64Counter("postern.gateway.policy.denials",
		metric.WithDescription("Fetches that a rule of the policy refused."))
	m.audits, errs[1] = meter.Int64Counter("postern.gateway.policy.audits",
		metric.WithDescription("Fetches that a rule of the policy that only audits would have refused."))
	m.reloads, errs[2] = meter.Int64Counter("postern.gateway.policy.reloads",
		metric.WithDescription("Changes of the policy's file that were read, by outcome: ok (the rules are in force), failed (those before are)."))
	_, errs[3] = meter.Int64ObservableGauge("postern.gateway.policy.rules",
		metric.WithDescription("Rules of the policy that are in force."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(int64(len(status().Rules)))
			return nil
		}))
	_, errs[4] = meter.Int64ObservableGauge("postern.gateway.policy.stale",
		metric.WithDescription("1 if the rules in the policy's file are not those in force, else 0."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			var stale int64
			if status().Error != "" {
				stale = 1
			}
			o.Observe(stale)
			return nil
		}))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("create the metrics of the policy: %w", err)
	}
	return &m, nil
}

func (m *metrics) violated(ctx context.Context, v rules.Violation) {
	counter := m.denials
	if v.Audits {
		counter = m.audits
	}
	counter.Add(ctx, 1, metric.WithAttributeSet(attribute.NewSet(ruleKey.String(v.Name))))
}

func (m *metrics) reloaded(ctx context.Context, outcome string) {
	m.reloads.Add(ctx, 1, metric.WithAttributeSet(attribute.NewSet(outcomeKey.String(outcome))))
}

// begin makes the series of rules, at 0 for those that nothing has broken yet.
func (m *metrics) begin(ctx context.Context, list []rules.Rule) {
	for _, rule := range list {
		counter := m.denials
		if rule.Audits {
			counter = m.audits
		}
		counter.Add(ctx, 0, metric.WithAttributeSet(attribute.NewSet(ruleKey.String(rule.Name))))
	}
}
