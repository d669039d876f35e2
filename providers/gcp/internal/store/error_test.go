package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/postern-dev/postern/providers/sdk"
)

func TestErrors(t *testing.T) {
	t.Parallel()
	denied := &errdetails.ErrorInfo{
		Reason: "IAM_PERMISSION_DENIED", Domain: "iam.googleapis.com",
		Metadata: map[string]string{"permission": accessVersion},
	}
	for name, tt := range map[string]struct {
		err                   error
		kind                  Kind
		reason, message, text string
	}{
		"denied": {
			says(codes.PermissionDenied, "Permission 'secretmanager.versions.access' denied", denied), Denied, "IAM_PERMISSION_DENIED",
			"Permission 'secretmanager.versions.access' denied",
			"secretmanager.googleapis.com: secretmanager.versions.access projects/p/secrets/web/versions/1: PermissionDenied (IAM_PERMISSION_DENIED): Permission 'secretmanager.versions.access' denied",
		},
		"no reason given": {
			says(codes.PermissionDenied, "no"), Denied, "", "no",
			"secretmanager.googleapis.com: secretmanager.versions.access projects/p/secrets/web/versions/1: PermissionDenied: no",
		},
		"the API is off":       {says(codes.PermissionDenied, "no", &errdetails.ErrorInfo{Reason: "SERVICE_DISABLED"}), Denied, "SERVICE_DISABLED", "no", ""},
		"a reason that is not": {says(codes.PermissionDenied, "no", &errdetails.ErrorInfo{Reason: "see\nhere"}), Denied, "", "no", ""},
		"details of others":    {says(codes.PermissionDenied, "no", wrapperspb.Int32(1), denied), Denied, "IAM_PERMISSION_DENIED", "no", ""},
		"token expired":        {says(codes.Unauthenticated, "expired", &errdetails.ErrorInfo{Reason: "ACCESS_TOKEN_EXPIRED"}), BadCredentials, "ACCESS_TOKEN_EXPIRED", "expired", ""},
		"disabled":             {says(codes.FailedPrecondition, "is in DISABLED state."), Disabled, "", "is in DISABLED state.", ""},
		"not found":            {says(codes.NotFound, "not found"), NotFound, "", "not found", ""},
		"invalid":              {says(codes.InvalidArgument, "bad name"), Invalid, "", "bad name", ""},
		"out of range":         {says(codes.OutOfRange, "far"), Invalid, "", "far", ""},
		"unimplemented":        {says(codes.Unimplemented, "what?"), Invalid, "", "what?", ""},
		"throttled":            {says(codes.ResourceExhausted, "Quota exceeded"), Throttled, "", "Quota exceeded", ""},
		"unavailable":          {says(codes.Unavailable, "down"), Unavailable, "", "down", ""},
		"unknown":              {errors.New("what"), Unavailable, "", "what", ""},
		"cancelled there":      {says(codes.Canceled, "gone"), Unavailable, "", "gone", ""},
		"data loss":            {says(codes.DataLoss, "gone"), Unavailable, "", "gone", ""},
		"many lines":           {says(codes.NotFound, "a\r\n b\tc "), NotFound, "", "a b c", ""},
		"nothing":              {says(codes.NotFound, ""), NotFound, "", "Google gave no reason", ""},
		"long":                 {says(codes.NotFound, strings.Repeat("é", maxMessage)), NotFound, "", strings.Repeat("é", maxMessage/2) + "...", ""},
		"the token":            {says(codes.Unauthenticated, "not valid: "+tokenOf+"web."), BadCredentials, "", "not valid: [redacted].", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := some()
				m.script = firstFail(9, tt.err)
				e := newWorld(t, m, Config{}).refused(t, as("web"), refTo("web", "1"))
				if e.Kind != tt.kind || e.Code != status.Code(tt.err) || e.Reason != tt.reason || e.Message != tt.message || e.Err != nil {
					t.Errorf("error is %#v", e)
				}
				if tt.text != "" && e.Error() != tt.text {
					t.Errorf("text is %q, want %q", e, tt.text)
				}
			})
		})
	}
}

// TestForeignAnswers: what is not the API's says nothing of secrets, and is not
// repeated.
func TestForeignAnswers(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{
		200: "the answer, of HTTP status 200, is not the API's",
		401: "the answer, of HTTP status 401, is not the API's",
		403: "the answer, of HTTP status 403, is not the API's",
		404: "the answer, of HTTP status 404, is not the API's",
		502: "the answer, of HTTP status 502, is not the API's",
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, some(), Config{})
				w.net.web = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
					rw.Header().Set("Content-Type", "text/html")
					rw.WriteHeader(status)
					fmt.Fprint(rw, "<p>canary")
				})
				if e := w.refused(t, as("web"), refTo("web", "1")); e.Kind != Unavailable || e.Message != want {
					t.Errorf("error is %v", e)
				}
			})
		})
	}
}

// TestTooLarge: an answer that no volume takes is not taken for too many requests.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	w := newWorld(t, some(), Config{})
	w.change = func(_ arrival, answer any) {
		answer.(*secretmanagerpb.AccessSecretVersionResponse).Payload.Data = []byte(strings.Repeat(contentsOf, maxAnswer/len(contentsOf)+1))
	}
	if e := w.refused(t, as("web"), refTo("web", "1")); e.Kind != Invalid || e.RetryAfter != 0 || e.Message != "the answer is larger than 8 MiB, which no volume takes" {
		t.Errorf("error is %v", e)
	}
}

// TestLargest: a parameter as large as a volume is read.
func TestLargest(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 4<<20)
	w := newWorld(t, &memoryGoogle{parameters: []*memoryParameter{{name: "conf", version: "v1", template: large[:1<<20], rendered: large}}}, Config{})
	if answer := w.read(t, as("web"), refToParameter("", "conf", "v1"))[0]; answer.Err != nil || answer.Contents.Len() != len(large) {
		t.Errorf("%d bytes, %v", answer.Contents.Len(), answer.Err)
	}
}

// TestNoCredentials: why there are none is said, and can be found out.
func TestNoCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t, some(), Config{})
	broken := errors.New("the pool is gone")
	e := w.refused(t, As{Credentials: bearer{identity: "web", err: broken}}, refTo("web", "1"))
	if e.Kind != BadCredentials || !errors.Is(e, broken) || e.Message != "there are no credentials to ask with: the pool is gone" {
		t.Errorf("error is %v", e)
	}
	if len(w.arrivals()) != 0 {
		t.Error("a request was made")
	}
	if !(&login{PerRPCCredentials: bearer{}}).RequireTransportSecurity() {
		t.Error("a token may go without TLS")
	}
}

// TestKinds: each has a name of its own.
func TestKinds(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for kind := range Corrupted + 2 {
		seen[kind.String()] = true
	}
	if want := int(Corrupted) + 1; len(seen) != want || !seen["unknown"] {
		t.Errorf("names are %v", seen)
	}
}

// TestNothingSecretIsPrinted prints what holds secrets every way Go can.
func TestNothingSecretIsPrinted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, some(), Config{})
	answer := w.read(t, as("web"), refTo("web", "1"))[0]
	if answer.Err != nil {
		t.Fatal(answer.Err)
	}
	l := &login{PerRPCCredentials: bearer{identity: "web"}, tokens: []sdk.SecretString{sdk.NewSecretString(tokenOf)}}
	var log logged
	whom := As{Credentials: canaryCredentials{Token: "canary"}, Identity: "web"}
	for name, value := range map[string]any{"answer": answer, "answers": []*Answer{&answer}, "as": whom, "*as": &whom, "login": l} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if text := fmt.Sprintf(verb, value); strings.Contains(text, "canary") || strings.Contains(text, "63616e617279") {
				t.Errorf("%s with %s: %s", name, verb, text)
			}
		}
		if text, err := json.Marshal(value); err != nil && name != "login" || strings.Contains(string(text), "canary") {
			t.Errorf("%s in JSON: %s, %v", name, text, err)
		}
		log.logger().Info("printed", slog.Any("value", value))
		slog.New(slog.NewJSONHandler(&log, nil)).Info("printed", slog.Any("value", value))
	}
	if text := log.String(); strings.Contains(text, "canary") || strings.Count(text, "\n") != 10 {
		t.Errorf("the log is %s", text)
	}
	if text := log.String(); !strings.Contains(text, "value=web\n") || !strings.Contains(text, `"value":"web"`) {
		t.Errorf("the log does not say who: %s", text)
	}
	if got, want := fmt.Sprint(whom), `As("web")`; got != want {
		t.Errorf("it prints %s, want %s", got, want)
	}
}

// canaryCredentials do not care.
type canaryCredentials struct {
	bearer
	Token string
}
