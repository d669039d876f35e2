package prometheus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Sample is one series of a query's result.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// ErrNoData is in the error of Await when there was nothing in time.
var ErrNoData = errors.New("no data")

// Query returns the result of an expression, an instant vector, as of now.
func (s *Server) Query(ctx context.Context, expression string) ([]Sample, error) {
	var data struct {
		ResultType string
		Result     json.RawMessage
	}
	if err := s.api(ctx, "query", url.Values{"query": {expression}}, &data); err != nil {
		return nil, err
	}
	if data.ResultType != "vector" {
		return nil, fmt.Errorf("query %s: the result is a %s, not a vector", expression, data.ResultType)
	}
	var vector []struct {
		Metric map[string]string
		Value  [2]any // time and, as a string, value
	}
	if err := json.Unmarshal(data.Result, &vector); err != nil {
		return nil, fmt.Errorf("query %s: %w", expression, err)
	}
	samples := make([]Sample, len(vector))
	for i, element := range vector {
		text, _ := element.Value[1].(string)
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("query %s: %w", expression, err)
		}
		samples[i] = Sample{Labels: element.Metric, Value: value}
	}
	return samples, nil
}

// Await asks until an expression has a result. It ends early, with the end of
// the log, when Prometheus dies or ctx ends.
func (s *Server) Await(ctx context.Context, expression string) (samples []Sample, err error) {
	err = s.process.WaitFor(ctx, func(ctx context.Context) error {
		if samples, err = s.Query(ctx, expression); err == nil && len(samples) == 0 {
			err = fmt.Errorf("%w: %s", ErrNoData, expression)
		}
		return err
	})
	return samples, err
}

// Alert is an alert that is pending or firing.
type Alert struct {
	Labels, Annotations map[string]string
	// State is "pending" or "firing".
	State string
}

// Alerts returns the alerts as of the last evaluation.
func (s *Server) Alerts(ctx context.Context) ([]Alert, error) {
	var data struct{ Alerts []Alert }
	if err := s.api(ctx, "alerts", nil, &data); err != nil {
		return nil, err
	}
	return data.Alerts, nil
}

// Exemplar is an example of what a series counted.
type Exemplar struct {
	// Series are the series' labels.
	Series map[string]string
	// Labels are the exemplar's own, such as trace_id.
	Labels map[string]string
	Value  float64
}

// Exemplars returns those of the last hour of the series that an expression
// asks for.
func (s *Server) Exemplars(ctx context.Context, expression string) ([]Exemplar, error) {
	now := time.Now()
	var data []struct {
		SeriesLabels map[string]string
		Exemplars    []struct {
			Labels map[string]string
			Value  float64 `json:"value,string"`
		}
	}
	if err := s.api(ctx, "query_exemplars", url.Values{
		"query": {expression}, "start": {now.Add(-time.Hour).Format(time.RFC3339)}, "end": {now.Add(time.Minute).Format(time.RFC3339)},
	}, &data); err != nil {
		return nil, err
	}
	var exemplars []Exemplar
	for _, series := range data {
		for _, exemplar := range series.Exemplars {
			exemplars = append(exemplars, Exemplar{Series: series.SeriesLabels, Labels: exemplar.Labels, Value: exemplar.Value})
		}
	}
	return exemplars, nil
}

// api calls one endpoint of the HTTP API.
func (s *Server) api(ctx context.Context, endpoint string, query url.Values, data any) error {
	body, err := s.get(ctx, "/api/v1/"+endpoint, query)
	if err != nil {
		return err
	}
	answer := struct{ Data any }{Data: data}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("read what Prometheus' %s says: %w", endpoint, err)
	}
	return nil
}

func (s *Server) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask Prometheus: %w", err)
	}
	req.Close = true // nothing of it stays when it ends
	resp, err := (&http.Client{Timeout: readyTimeout}).Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask Prometheus: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("ask Prometheus: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask Prometheus for %s %s: %s: %s", path, query.Get("query"), resp.Status, body)
	}
	return body, nil
}
