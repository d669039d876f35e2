package podstatus_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/postern-dev/postern/driver/internal/podstatus"
)

func TestLogRecorder(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	recorder, err := podstatus.NewLogRecorder(slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatalf("NewLogRecorder: %v", err)
	}
	failing := mounted()
	failing.Stale = &podstatus.Failure{Reason: "STORE_UNAVAILABLE", Message: "down"}
	recorder.Mounted(mounted())
	failing.Unsynced = &podstatus.Failure{Reason: "FORBIDDEN", Message: "may not"}
	recorder.Mounted(failing)
	e := warning()
	e.Detail, e.TraceID = "5m old", "abc"
	recorder.Tell(e)
	e.Normal = true
	recorder.Tell(e)
	for _, want := range []string{
		`level=INFO msg="volume is in place" namespace=shop pod=web-0`,
		`level=WARN msg="volume keeps its last good content" namespace=shop pod=web-0 secret_provider_class=db volume_id=csi-1 count=2 reason=STORE_UNAVAILABLE error=down`,
		`level=WARN msg="volume is in place, its Kubernetes Secrets are not" namespace=shop pod=web-0 secret_provider_class=db volume_id=csi-1 count=2 reason=FORBIDDEN error="may not"`,
		`level=WARN msg="warning for a pod" namespace=shop pod=web-0 reason=SecretsMountFailed trace_id=abc error="no such object: create it (5m old)"`,
		`level=INFO msg="event for a pod" namespace=shop pod=web-0 reason=SecretsMountFailed trace_id=abc message="no such object: create it (5m old)"`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log lacks %q:\n%s", want, &log)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 5 {
		t.Errorf("%d lines, want 5:\n%s", n, &log)
	}
}

func TestNew_Errors(t *testing.T) {
	t.Parallel()
	if _, err := podstatus.New(podstatus.Config{}); err == nil || err.Error() != "recorder needs the node's name" {
		t.Errorf("got %v", err)
	}
	if _, err := podstatus.New(podstatus.Config{Node: "n"}); err == nil || err.Error() != "recorder needs where to write statuses and events" {
		t.Errorf("got %v", err)
	}
	if _, err := podstatus.NewLogRecorder(nil); err == nil {
		t.Error("NewLogRecorder without a logger works")
	}
}
