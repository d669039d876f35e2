package fetch

import (
	"testing"
	"time"
	"unsafe"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/postern-dev/postern/gateway/internal/answer"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
)

func TestDemand(t *testing.T) {
	t.Parallel()
	const ago = -time.Hour
	tests := []struct {
		name string
		// after is what the request says, fetched when the store was asked, both
		// relative to when the request came.
		after, fetched time.Duration
		kept, joined   bool
	}{
		{"newer", ago, ago + 1, true, true},
		{"the one that it has", ago, ago, false, false},
		{"older", ago, ago - 1, false, false},
		{"asked for since", ago, time.Second, true, true},
		{"asked for as it came", ago, 0, true, true},
		{"since now, asked for before", 0, -1, false, false},
		{"since now, asked for now", 0, 0, false, true},
		{"since now, asked for since", 0, 1, true, true},
		{"of the future, asked for before", time.Hour, -1, false, false},
		{"of the future, asked for now", time.Hour, 0, false, true},
		{"of the future, asked for since", time.Hour, 1, true, true},
	}
	now := time.Now()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := demandOf(&gatewayv1.FetchRequest{FetchedAfter: timestamppb.New(now.Add(tt.after))}, now)
			a := answerOf(now.Add(tt.fetched))
			if d.allowsKept(a) != tt.kept || d.allowsJoined(a) != tt.joined {
				t.Errorf("kept: %t, joined: %t; want %t, %t", d.allowsKept(a), d.allowsJoined(a), tt.kept, tt.joined)
			}
		})
	}
}

func answerOf(at time.Time) *answer.Answer { return answer.New(&providerv1.FetchResponse{}, at) }

// Times before all clocks are times as well.
func TestDemand_LongAgo(t *testing.T) {
	t.Parallel()
	for _, after := range []*timestamppb.Timestamp{{}, {Seconds: -62135596800}, {Seconds: 1}} {
		d := demandOf(&gatewayv1.FetchRequest{FetchedAfter: after}, time.Now())
		if !d.bounded() || !d.allowsKept(answerOf(time.Now().Add(-24*time.Hour))) {
			t.Errorf("%v: bounded: %t, and an answer of yesterday is too old", after, d.bounded())
		}
	}
	if d := demandOf(&gatewayv1.FetchRequest{}, time.Now()); d.bounded() || !d.allowsJoined(answerOf(time.Time{})) {
		t.Error("a request without a demand has one")
	}
}

// When the wall clock is set, it disagrees with the monotonic one about how old
// an answer is. What is too old by either is not served, unless it was asked for
// since the request came.
func TestDemand_ClockIsSet(t *testing.T) {
	t.Parallel()
	const age = time.Minute
	tests := []struct {
		name  string
		by    time.Duration
		after time.Duration // relative to when the request came, by the wall clock
		kept  bool
	}{
		{"back: too old by the monotonic clock", -time.Hour, -age / 2, false},
		{"back: new enough", -time.Hour, -2 * age, true},
		{"back: the one that it has", -time.Hour, time.Hour - age, false},
		{"forward: too old by the wall clock", time.Hour, -2 * age, false},
		{"forward: new enough", time.Hour, -time.Hour - 2*age, true},
		{"forward: the one that it has", time.Hour, -time.Hour - age, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fetchedAt := time.Now()
			came := set(t, fetchedAt.Add(age), tt.by)
			d := demandOf(&gatewayv1.FetchRequest{FetchedAfter: timestamppb.New(came.Add(tt.after))}, came)
			if got := d.allowsKept(answerOf(fetchedAt)); got != tt.kept {
				t.Errorf("an answer that is %v old is served: %t", age, got)
			}
			if since := set(t, came.Add(time.Second), tt.by); !d.allowsJoined(answerOf(since)) {
				t.Error("an answer is not served that was asked for since the request came")
			}
		})
	}
}

// set is a time as the wall clock shows it that was set, and the monotonic one as
// it was. Nothing in package time makes one.
func set(t *testing.T, at time.Time, by time.Duration) time.Time {
	t.Helper()
	was := at
	const nanosecondBits = 30
	*(*uint64)(unsafe.Pointer(&at)) += uint64(by/time.Second) << nanosecondBits
	if at.Sub(was) != 0 || at.Round(0).Sub(was.Round(0)) != by {
		t.Fatal("a time.Time is not as this function takes it to be")
	}
	return at
}
