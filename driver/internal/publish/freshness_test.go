package publish_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/postern-dev/postern/driver/internal/publish"
)

// measured is a world whose metrics can be read.
func measured(t *testing.T) (*world, *sdkmetric.ManualReader) {
	t.Helper()
	w := newWorld(t)
	reader := sdkmetric.NewManualReader()
	metrics, err := publish.NewMetrics(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test"))
	if err != nil {
		t.Fatal(err)
	}
	w.config.Metrics, w.config.RotationPollInterval = metrics, interval
	return w, reader
}

// gauges are the values of all gauges and counters, by name and labels.
func gauges(t *testing.T, reader *sdkmetric.ManualReader) map[string]float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			add := func(set attribute.Set, value float64) {
				name := m.Name
				for _, kv := range set.ToSlice() {
					name += " " + kv.Value.String()
				}
				values[name] = value
			}
			switch data := m.Data.(type) {
			case metricdata.Gauge[float64]:
				for _, point := range data.DataPoints {
					add(point.Attributes, point.Value)
				}
			case metricdata.Gauge[int64]:
				for _, point := range data.DataPoints {
					add(point.Attributes, float64(point.Value))
				}
			case metricdata.Sum[int64]:
				for _, point := range data.DataPoints {
					add(point.Attributes, float64(point.Value))
				}
			}
		}
	}
	return values
}

func TestMetrics_Freshness(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, reader := measured(t)
		p := w.running(t)
		mounted := time.Now()
		mustPublish(t, w, p, 1)
		<-time.After(30 * time.Second)
		got := gauges(t, reader)
		const class = " vault shop/database"
		if got["postern.driver.content.age"+class] != 30 || got["postern.driver.refresh.interval"+class] != 120 {
			t.Errorf("after 30 s: %v", got)
		}
		if due := got["postern.driver.next_refresh.timestamp"+class] - float64(mounted.Unix()); due < 60 || due > 120 {
			t.Errorf("due after %v s", due)
		}
		states := func(fresh, failing, waiting float64) {
			t.Helper()
			got := gauges(t, reader)
			if got["postern.driver.volumes vault fresh"] != fresh || got["postern.driver.volumes vault failing"] != failing ||
				got["postern.driver.volumes vault waiting_for_token"] != waiting {
				t.Errorf("states: %v", got)
			}
		}
		states(1, 0, 0)
		w.gateway.become(nil, errDown)
		<-time.After(10 * time.Minute)
		states(0, 1, 0)
		got = gauges(t, reader)
		if age := got["postern.driver.content.age"+class]; age != 630 {
			t.Errorf("age %v", age)
		}
		if n := got["postern.driver.refreshes failed vault STORE_UNAVAILABLE"]; n < 10 {
			t.Errorf("%v failures: %v", n, got)
		}
		w.gateway.become(nil, errExpired)
		<-time.After(2 * time.Minute)
		states(0, 0, 1)
		if _, ok := gauges(t, reader)["postern.driver.next_refresh.timestamp"+class]; ok {
			t.Error("what waits for a token has a due time")
		}
		w.gateway.become(holding("new", "2", 0o600), nil)
		if err := p.Publish(t.Context(), request(t, nil)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		states(1, 0, 0)
		got = gauges(t, reader)
		if got["postern.driver.content.age"+class] != 0 || got["postern.driver.refreshes changed vault OK"] != 1 {
			t.Errorf("after it worked again: %v", got)
		}
		w.classes.set("rotationPollInterval", "off")
		<-time.After(interval + late)
		got = gauges(t, reader)
		for _, name := range []string{"postern.driver.refresh.interval" + class, "postern.driver.next_refresh.timestamp" + class} {
			if _, ok := got[name]; ok {
				t.Errorf("the class is not refreshed any more, and %s is still there", name)
			}
		}
		if err := p.Unpublish(t.Context(), "csi-1", target); err != nil {
			t.Fatal(err)
		}
		got = gauges(t, reader)
		for _, name := range []string{"postern.driver.content.age" + class, "postern.driver.volumes vault fresh"} {
			if _, ok := got[name]; ok {
				t.Errorf("%s is still there", name)
			}
		}
	})
}

// Of a class's volumes the one tells that is oldest.
func TestMetrics_OldestOfAClass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, reader := measured(t)
		p := w.running(t)
		for i, id := range []string{"first", "second", "third"} {
			r := request(t, nil)
			r.VolumeID, r.Target = id, "/kubelet/"+id
			if err := p.Publish(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Duration(i+1) * time.Second)
		}
		got := gauges(t, reader)
		if age := got["postern.driver.content.age vault shop/database"]; age != 6 {
			t.Errorf("age %v, want that of the first", age)
		}
		if got["postern.driver.volumes vault fresh"] != 3 {
			t.Errorf("volumes: %v", got)
		}
	})
}

// Reasons without a name must not make a series each.
func TestMetrics_UnknownReason(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, reader := measured(t)
		mustPublish(t, w, w.running(t), 1)
		w.gateway.become(nil, errors.New("something that changes: 17"))
		nextFetch(t, w, 2)
		if got := gauges(t, reader); got["postern.driver.refreshes failed vault UNKNOWN"] != 1 {
			t.Errorf("metrics: %v", got)
		}
	})
}

// What a driver that was restarted finds mounted is at least as old as the
// driver: nobody is told that all is well because nothing is known.
func TestMetrics_FreshnessAfterRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		mustPublish(t, w, w.publisher(t), 1)
		w.gateway.become(nil, errDown)
		restarted, reader := measured(t)
		w.config.Metrics, w.config.RotationPollInterval = restarted.config.Metrics, interval
		p := w.running(t)
		if err := p.Publish(t.Context(), request(t, nil)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		<-time.After(10 * time.Minute)
		got := gauges(t, reader)
		const class = " vault shop/database"
		if got["postern.driver.content.age"+class] != 600 || got["postern.driver.refresh.interval"+class] != interval.Seconds() {
			t.Errorf("ten minutes after a restart, with the store away: %v", got)
		}
		if got["postern.driver.volumes vault failing"] != 1 {
			t.Errorf("the state is of no provider: %v", got)
		}
	})
}
