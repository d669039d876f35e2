// Package sigv4 verifies AWS Signature Version 4, written from its specification:
// it shares no code with any signer.
package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
)

// Window is how far a request's date may be from the server's.
const Window = 15 * time.Minute

const (
	algorithm  = "AWS4-HMAC-SHA256"
	terminator = "aws4_request"
	dateFormat = "20060102T150405Z"
)

// Errors of Parse and Verify. Those in AWS' words end a user's search.
var (
	// ErrMissing says that a request is not signed.
	ErrMissing = errors.New("Missing Authentication Token") //nolint:staticcheck // AWS' words
	// ErrIncomplete says that the signature lacks something.
	ErrIncomplete = errors.New("incomplete signature")
	// ErrDate says that the request is too old or too new.
	ErrDate = errors.New("signature date")
	// ErrMismatch says that the signature is another's.
	ErrMismatch = errors.New("The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.") //nolint:staticcheck,revive // AWS' words
)

// Signature is what a request's Authorization header says.
type Signature struct {
	AccessKey string
	// Date, Region and Service are the scope.
	Date, Region, Service string
	// Token is the session's.
	Token string

	headers   []string
	signature string
	at        time.Time
}

// Parse reads the signature of a request.
func Parse(r *http.Request) (*Signature, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return nil, ErrMissing
	}
	fields, ok := strings.CutPrefix(header, algorithm+" ")
	if !ok {
		return nil, fmt.Errorf("%w: the algorithm is not %s", ErrIncomplete, algorithm)
	}
	values := map[string]string{}
	for field := range strings.SplitSeq(fields, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		values[name] = value
	}
	scope := strings.Split(values["Credential"], "/")
	if len(scope) != 5 || scope[4] != terminator || values["SignedHeaders"] == "" || values["Signature"] == "" {
		return nil, fmt.Errorf("%w: Authorization needs Credential, SignedHeaders and Signature", ErrIncomplete)
	}
	at, err := time.Parse(dateFormat, r.Header.Get("X-Amz-Date"))
	if err != nil || at.Format("20060102") != scope[1] {
		return nil, fmt.Errorf("%w: X-Amz-Date is missing or not that of the scope", ErrIncomplete)
	}
	return &Signature{
		AccessKey: scope[0], Date: scope[1], Region: scope[2], Service: scope[3],
		Token:   r.Header.Get("X-Amz-Security-Token"),
		headers: strings.Split(values["SignedHeaders"], ";"), signature: values["Signature"], at: at,
	}, nil
}

// Verify tells whether the request was signed with the secret key, within the
// window around now.
func (s *Signature) Verify(r *http.Request, body []byte, secret string, now time.Time) error {
	if err := s.checkHeaders(r); err != nil {
		return err
	}
	if s.at.Before(now.Add(-Window)) {
		return fmt.Errorf("%w: Signature expired: %s is now earlier than %s (%s - 15 min.)", ErrDate,
			s.at.Format(dateFormat), now.Add(-Window).UTC().Format(dateFormat), now.UTC().Format(dateFormat))
	}
	if s.at.After(now.Add(Window)) {
		return fmt.Errorf("%w: Signature not yet current: %s is still later than %s (%s + 15 min.)", ErrDate,
			s.at.Format(dateFormat), now.Add(Window).UTC().Format(dateFormat), now.UTC().Format(dateFormat))
	}
	want := s.sign(s.stringToSign(s.canonical(r, body)), secret)
	if !hmac.Equal([]byte(want), []byte(s.signature)) {
		return ErrMismatch
	}
	return nil
}

// checkHeaders has the host and all of AWS' own headers signed, in order.
func (s *Signature) checkHeaders(r *http.Request) error {
	if !slices.IsSorted(s.headers) || !slices.Contains(s.headers, "host") {
		return fmt.Errorf("%w: SignedHeaders has to be sorted and to hold host", ErrIncomplete)
	}
	for name := range r.Header {
		name = strings.ToLower(name)
		if (strings.HasPrefix(name, "x-amz-") || name == "content-type") && !slices.Contains(s.headers, name) {
			return fmt.Errorf("%w: header %s is not signed", ErrIncomplete, name)
		}
	}
	return nil
}

// canonical is the request in its canonical form.
func (s *Signature) canonical(r *http.Request, body []byte) string {
	lines := []string{r.Method, canonicalPath(r.URL), canonicalQuery(r.URL)}
	for _, name := range s.headers {
		lines = append(lines, name+":"+canonicalHeader(r, name))
	}
	sum := sha256.Sum256(body)
	lines = append(lines, "", strings.Join(s.headers, ";"), hex.EncodeToString(sum[:]))
	return strings.Join(lines, "\n")
}

func (s *Signature) stringToSign(canonical string) string {
	sum := sha256.Sum256([]byte(canonical))
	scope := strings.Join([]string{s.Date, s.Region, s.Service, terminator}, "/")
	return strings.Join([]string{algorithm, s.at.Format(dateFormat), scope, hex.EncodeToString(sum[:])}, "\n")
}

func (s *Signature) sign(text, secret string) string {
	key := []byte("AWS4" + secret)
	for _, part := range []string{s.Date, s.Region, s.Service, terminator} {
		key = hash(key, part)
	}
	return hex.EncodeToString(hash(key, text))
}

func hash(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte(text)) // it never fails
	return h.Sum(nil)
}

// canonicalPath is the normalized path, with each segment encoded once more than
// it was sent: twice, as for every service but S3.
func canonicalPath(u *url.URL) string {
	sent := u.EscapedPath()
	clean := path.Clean("/" + sent)
	if strings.HasSuffix(sent, "/") && clean != "/" {
		clean += "/"
	}
	return encode(clean, true)
}

// canonicalQuery is sorted by name, then by value.
func canonicalQuery(u *url.URL) string {
	var pairs [][2]string
	for name, values := range u.Query() {
		for _, value := range values {
			pairs = append(pairs, [2]string{encode(name, false), encode(value, false)})
		}
	}
	slices.SortFunc(pairs, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	joined := make([]string, len(pairs))
	for i, pair := range pairs {
		joined[i] = pair[0] + "=" + pair[1]
	}
	return strings.Join(joined, "&")
}

// canonicalHeader is a header's values, in the order in which they came, with
// runs of spaces as one.
func canonicalHeader(r *http.Request, name string) string {
	values := r.Header.Values(name)
	switch {
	case name == "host":
		values = []string{r.Host}
	case name == "content-length" && len(values) == 0:
		values = []string{fmt.Sprint(r.ContentLength)}
	}
	folded := make([]string, len(values))
	for i, value := range values {
		folded[i] = strings.Join(strings.Fields(value), " ")
	}
	return strings.Join(folded, ",")
}

// encode encodes all but the unreserved characters of RFC 3986.
func encode(text string, slashes bool) string {
	var out strings.Builder
	for _, c := range []byte(text) {
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', strings.IndexByte("-_.~", c) >= 0, slashes && c == '/':
			out.WriteByte(c)
		default:
			_, _ = fmt.Fprintf(&out, "%%%02X", c)
		}
	}
	return out.String()
}
