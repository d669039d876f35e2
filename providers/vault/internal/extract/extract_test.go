package extract

import (
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/postern-dev/postern/providers/vault/internal/params"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

func answerOf(t *testing.T, body string) *store.Answer {
	t.Helper()
	secret, err := api.ParseSecret(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return store.NewAnswer(secret)
}

const (
	v1 = `{"request_id":"r","lease_id":"","lease_duration":2764800,"renewable":false,"warnings":null,"mount_type":"kv",
		"data":{"s":"text","n":1.50,"big":12345678901234567890,"b":true,"nil":null,"l":["a",1],"m":{"z":1,"a":"<"},
		"b64":"aGk=","hex":"6869","bin":"\u0000\u00ff"}}`
	v2 = `{"request_id":"r","data":{"data":{"s":"two","metadata":"mine"},"metadata":{"version":3,"created_time":"x"}}}`
)

func TestContents(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body   string
		object params.Object
		want   string
	}{
		"string":         {v1, params.Object{Key: "s"}, "text"},
		"number":         {v1, params.Object{Key: "n"}, "1.50"},
		"large number":   {v1, params.Object{Key: "big"}, "12345678901234567890"},
		"bool":           {v1, params.Object{Key: "b"}, "true"},
		"null":           {v1, params.Object{Key: "nil"}, "null"},
		"list":           {v1, params.Object{Key: "l"}, `["a",1]`},
		"map, sorted":    {v1, params.Object{Key: "m"}, `{"a":"\u003c","z":1}`},
		"base64":         {v1, params.Object{Key: "b64", Encoding: params.Base64}, "hi"},
		"hex":            {v1, params.Object{Key: "hex", Encoding: params.Hex}, "hi"},
		"bytes":          {v1, params.Object{Key: "bin"}, "\x00\u00ff"},
		"kv 2":           {v2, params.Object{Key: "s"}, "two"},
		"kv 2 own key":   {v2, params.Object{Key: "metadata"}, "mine"},
		"kv 2 data only": {v2, params.Object{Format: params.Data}, `{"metadata":"mine","s":"two"}`},
		"envelope": {
			v2,
			params.Object{Format: params.Envelope},
			`{"request_id":"","lease_id":"","lease_duration":0,"renewable":false,"data":{"data":{"metadata":"mine","s":"two"},"metadata":{"created_time":"x","version":3}},"warnings":null}`,
		},
		"raw": {
			v2,
			params.Object{Format: params.Raw},
			`{"request_id":"r","lease_id":"","lease_duration":0,"renewable":false,"data":{"data":{"metadata":"mine","s":"two"},"metadata":{"created_time":"x","version":3}},"warnings":null}`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Contents(answerOf(t, tt.body), tt.object)
			if err != nil || string(got) != tt.want {
				t.Errorf("Contents = %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestContentsErrors(t *testing.T) {
	t.Parallel()
	_, err := Contents(answerOf(t, v2), params.Object{Key: "data"})
	if e, ok := errors.AsType[*KeyError](err); !ok || e.Error() != `key "data" does not exist at the secret path` {
		t.Errorf("error = %v", err)
	}
	for _, encoding := range []params.Encoding{params.Base64, params.Hex} {
		_, err := Contents(answerOf(t, `{"data":{"k":"canary!"}}`), params.Object{Key: "k", Encoding: encoding})
		if !errors.Is(err, ErrEncoding) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: error = %v, want ErrEncoding without the value", encoding, err)
		}
	}
}

func FuzzContents(f *testing.F) {
	f.Add(v1, "s", "hex", "envelope")
	f.Add(v2, "", "", "data")
	f.Add(`{"data":{"data":null,"metadata":7}}`, "data", "base64", "raw")
	f.Fuzz(func(_ *testing.T, body, key, encoding, format string) {
		secret, err := api.ParseSecret(strings.NewReader(body))
		if err != nil || secret == nil {
			return
		}
		answer := store.NewAnswer(secret)
		_, _ = Contents(answer, params.Object{Key: key, Encoding: params.Encoding(encoding), Format: params.Format(format)})
		_, _ = answer.Expiration()
	})
}
