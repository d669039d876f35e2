package sigv4_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/aws/sigv4"
)

// The key, the date and the scope of AWS' published test suite.
const (
	secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	date   = "20150830T123600Z"
)

func now() time.Time { return time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC) }

// signed is a request with its signature.
type signed struct {
	method, url, body string
	// header are names and values in turn.
	header    []string
	service   string
	headers   string
	signature string
}

func (s signed) request(t *testing.T) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), s.method, s.url, strings.NewReader(s.body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(s.header); i += 2 {
		r.Header.Add(s.header[i], s.header[i+1])
	}
	r.Header.Set("X-Amz-Date", date)
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/"+s.service+
		"/aws4_request, SignedHeaders="+s.headers+", Signature="+s.signature)
	return r
}

// vectors are of AWS' test suite for signers, and the example of its user guide.
// Paths of other than unreserved characters are left out: the suite has them raw,
// and no service here has a path.
func vectors() map[string]signed {
	const suite, site, plain = "service", "http://example.amazonaws.com", "host;x-amz-date"
	return map[string]signed{
		"get-vanilla":                        {"GET", site + "/", "", nil, suite, plain, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		"get-relative-relative-normalized":   {"GET", site + "/example1/example2/../..", "", nil, suite, plain, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		"get-slash-pointless-dot-normalized": {"GET", site + "/./example", "", nil, suite, plain, "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5"},
		"get-slashes-normalized":             {"GET", site + "//example//", "", nil, suite, plain, "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84"},
		"get-unreserved":                     {"GET", site + "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "", nil, suite, plain, "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
		"get-vanilla-query-order-key-case":   {"GET", site + "/?Param2=value2&Param1=value1", "", nil, suite, plain, "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
		"get-vanilla-query-order-encoded":    {"GET", site + "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1", "", nil, suite, plain, "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac"},
		"get-vanilla-utf8-query":             {"GET", site + "/?ሴ=bar", "", nil, suite, plain, "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
		"get-header-key-duplicate":           {"GET", site + "/", "", []string{"My-Header1", "value2", "My-Header1", "value2", "My-Header1", "value1"}, suite, "host;my-header1;x-amz-date", "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
		"get-header-value-order":             {"GET", site + "/", "", []string{"My-Header1", "value4", "My-Header1", "value1", "My-Header1", "value3", "My-Header1", "value2"}, suite, "host;my-header1;x-amz-date", "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"},
		"get-header-value-trim":              {"GET", site + "/", "", []string{"My-Header1", " value1", "My-Header2", ` "a   b   c"`}, suite, "host;my-header1;my-header2;x-amz-date", "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
		"get-vanilla-with-session-token":     {"GET", site + "/", "", []string{"X-Amz-Security-Token", "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"}, suite, "host;x-amz-date;x-amz-security-token", "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8"},
		"post-x-www-form-urlencoded": {
			"POST", site + "/", "Param1=value1",
			[]string{"Content-Type", "application/x-www-form-urlencoded", "X-Amz-Content-Sha256", "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e"},
			suite, "content-length;content-type;host;x-amz-content-sha256;x-amz-date", "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
		},
		"the user guide's ListUsers": {
			"GET", "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08", "",
			[]string{"Content-Type", "application/x-www-form-urlencoded; charset=utf-8"},
			"iam", "content-type;host;x-amz-date", "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
		},
	}
}

func TestPublishedVectors(t *testing.T) {
	t.Parallel()
	for name, vector := range vectors() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := vector.request(t)
			s, err := sigv4.Parse(r)
			if err != nil {
				t.Fatal(err)
			}
			if s.AccessKey != "AKIDEXAMPLE" || s.Region != "us-east-1" || s.Service != vector.service || s.Token != r.Header.Get("X-Amz-Security-Token") {
				t.Errorf("scope %+v", s)
			}
			if err := s.Verify(r, []byte(vector.body), secret, now()); err != nil {
				t.Error(err)
			}
			if err := s.Verify(r, []byte(vector.body+"x"), secret, now()); !errors.Is(err, sigv4.ErrMismatch) {
				t.Errorf("with another body: %v", err)
			}
			if err := s.Verify(r, []byte(vector.body), secret+"x", now()); !errors.Is(err, sigv4.ErrMismatch) {
				t.Errorf("with another key: %v", err)
			}
		})
	}
}

func TestWhatIsSignedMayNotChange(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*http.Request){
		"method":       func(r *http.Request) { r.Method = http.MethodPut },
		"path":         func(r *http.Request) { r.URL.Path = "/x" },
		"query":        func(r *http.Request) { r.URL.RawQuery = "a=b" },
		"host":         func(r *http.Request) { r.Host = "example.org" },
		"content type": func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
		"date":         func(r *http.Request) { r.Header.Set("X-Amz-Date", "20150830T123601Z") },
		"signature":    func(r *http.Request) { authorization(r, "Signature=d", "Signature=e") },
		"key's region": func(r *http.Request) { authorization(r, "us-east-1", "us-east-2") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vector := vectors()["post-x-www-form-urlencoded"]
			r := vector.request(t)
			change(r)
			s, err := sigv4.Parse(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Verify(r, []byte(vector.body), secret, now()); !errors.Is(err, sigv4.ErrMismatch) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestDates(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		at   time.Duration
		want error
	}{
		"15 minutes ago":           {15 * time.Minute, nil},
		"more than 15 ago":         {15*time.Minute + time.Second, sigv4.ErrDate},
		"15 minutes in future":     {-15 * time.Minute, nil},
		"more than 15 from now on": {-15*time.Minute - time.Second, sigv4.ErrDate},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vector := vectors()["get-vanilla"]
			r := vector.request(t)
			s, err := sigv4.Parse(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Verify(r, nil, secret, now().Add(test.at)); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestIncompleteSignatures(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*http.Request)
		want   error
	}{
		"none":                 {func(r *http.Request) { r.Header.Del("Authorization") }, sigv4.ErrMissing},
		"another algorithm":    {func(r *http.Request) { authorization(r, "AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256") }, sigv4.ErrIncomplete},
		"no scope":             {func(r *http.Request) { authorization(r, "/20150830/us-east-1/service/aws4_request", "") }, sigv4.ErrIncomplete},
		"another terminator":   {func(r *http.Request) { authorization(r, "aws4_request", "aws5_request") }, sigv4.ErrIncomplete},
		"no signature":         {func(r *http.Request) { authorization(r, "Signature=", "S=") }, sigv4.ErrIncomplete},
		"no signed headers":    {func(r *http.Request) { authorization(r, "SignedHeaders=", "S=") }, sigv4.ErrIncomplete},
		"no date":              {func(r *http.Request) { r.Header.Del("X-Amz-Date") }, sigv4.ErrIncomplete},
		"date of another day":  {func(r *http.Request) { r.Header.Set("X-Amz-Date", "20150831T123600Z") }, sigv4.ErrIncomplete},
		"host is not signed":   {func(r *http.Request) { authorization(r, "host;", "") }, sigv4.ErrIncomplete},
		"headers in disorder":  {func(r *http.Request) { authorization(r, "host;x-amz-date", "x-amz-date;host") }, sigv4.ErrIncomplete},
		"a header not signed":  {func(r *http.Request) { r.Header.Set("X-Amz-Target", "t") }, sigv4.ErrIncomplete},
		"content type neither": {func(r *http.Request) { r.Header.Set("Content-Type", "t") }, sigv4.ErrIncomplete},
		"others may":           {func(r *http.Request) { r.Header.Set("Traceparent", "t") }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vector := vectors()["get-vanilla"]
			r := vector.request(t)
			test.change(r)
			s, err := sigv4.Parse(r)
			if err == nil {
				err = s.Verify(r, nil, secret, now())
			}
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// authorization replaces a part of the header.
func authorization(r *http.Request, was, is string) {
	r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), was, is, 1))
}
