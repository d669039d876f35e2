package publish

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// maxClasses bounds the classes that have series of their own: more than a
// node's pods mount.
const maxClasses = 500

// Values of the label state.
const (
	stateFresh           = "fresh"
	stateFailing         = "failing"
	stateWaitingForToken = "waiting_for_token"
)

// freshness is how old what volumes hold is. The classes of a node's volumes are
// as many as its pods at most, so that each may have its series; pods come and
// go, and have none.
type freshness struct {
	meter                    metric.Meter
	volumes                  metric.Int64ObservableGauge
	age, interval, nextRound metric.Float64ObservableGauge
}

func newFreshness(meter metric.Meter) (freshness, error) {
	f := freshness{meter: meter}
	var errs [4]error
	f.volumes, errs[0] = meter.Int64ObservableGauge("postern.driver.volumes",
		metric.WithDescription("Mounted volumes, by whether refreshing them works."))
	f.age, errs[1] = meter.Float64ObservableGauge("postern.driver.content.age", metric.WithUnit("s"),
		metric.WithDescription("How long ago the store was asked for what the class's volumes hold: the oldest."))
	f.interval, errs[2] = meter.Float64ObservableGauge("postern.driver.refresh.interval", metric.WithUnit("s"),
		metric.WithDescription("How old that may get before it is fetched again."))
	f.nextRound, errs[3] = meter.Float64ObservableGauge("postern.driver.next_refresh.timestamp", metric.WithUnit("s"),
		metric.WithDescription("When a volume of the class is fetched again next, in seconds since 1970."))
	return f, errors.Join(errs[:]...)
}

// observe has the gauges tell how the volumes are.
func (m *Metrics) observe(all func() []mountedVolume) error {
	f := m.freshness
	_, err := f.meter.RegisterCallback(func(_ context.Context, observer metric.Observer) error {
		f.report(observer, all(), time.Now())
		return nil
	}, f.volumes, f.age, f.interval, f.nextRound)
	return err
}

func (f freshness) report(observer metric.Observer, volumes []mountedVolume, now time.Time) {
	states := make(map[[2]string]int64)
	classes := make(map[[2]string]classFreshness)
	for i := range volumes {
		v := &volumes[i]
		for _, state := range []string{stateFresh, stateFailing, stateWaitingForToken} {
			states[[2]string{v.content.provider, state}] += 0 // all are there, for alerts
		}
		states[[2]string{v.content.provider, v.state()}]++
		key := [2]string{v.content.provider, v.class()}
		if _, ok := classes[key]; ok || len(classes) < maxClasses {
			classes[key] = classes[key].with(v, now)
		}
	}
	for key, count := range states {
		observer.ObserveInt64(f.volumes, count, metric.WithAttributes(labelProvider.String(key[0]), labelState.String(key[1])))
	}
	for key, c := range classes {
		f.reportClass(observer, c, labelProvider.String(key[0]), labelClass.String(key[1]))
	}
}

func (f freshness) reportClass(observer metric.Observer, c classFreshness, labels ...attribute.KeyValue) {
	attributes := metric.WithAttributes(labels...)
	if c.known {
		observer.ObserveFloat64(f.age, c.age.Seconds(), attributes)
	}
	if c.interval > 0 {
		observer.ObserveFloat64(f.interval, c.interval.Seconds(), attributes)
	}
	if !c.due.IsZero() {
		observer.ObserveFloat64(f.nextRound, float64(c.due.UnixMilli())/1000, attributes)
	}
}

// classFreshness is how fresh the volumes of a class are.
type classFreshness struct {
	known bool
	// age and interval are those of the volume whose content is oldest, measured
	// by its interval.
	age, interval time.Duration
	due           time.Time
}

func (c classFreshness) with(v *mountedVolume, now time.Time) classFreshness {
	c.due = earlier(c.due, v.due)
	fetched := v.content.fetchedAt
	if fetched.IsZero() {
		// Another process mounted it, and this one could not fetch it since.
		fetched = v.failingSince
	}
	if fetched.IsZero() || v.content.provider == "" {
		return c
	}
	other := classFreshness{known: true, age: now.Sub(fetched), interval: v.content.interval, due: c.due}
	if !c.known || other.intervals() > c.intervals() {
		return other
	}
	return c
}

// intervals is how many intervals the content is old; what is never fetched
// again is never old.
func (c classFreshness) intervals() float64 {
	if c.interval == 0 {
		return 0
	}
	return c.age.Seconds() / c.interval.Seconds()
}

func (v *mountedVolume) state() string {
	switch {
	case v.waitsForToken():
		return stateWaitingForToken
	case v.failure != nil:
		return stateFailing
	default:
		return stateFresh
	}
}
