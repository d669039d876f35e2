// Package extract makes a file's contents of a store's answer.
package extract

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/postern-dev/postern/providers/vault/internal/params"
	"github.com/postern-dev/postern/providers/vault/internal/store"
)

// KeyError is a secretKey that the answer's data does not have.
type KeyError struct {
	Key string
}

// Error names the key.
func (e *KeyError) Error() string {
	return fmt.Sprintf("key %q does not exist at the secret path", e.Key)
}

// ErrEncoding is a value that is not encoded as the object says. Errors do not
// hold the value.
var ErrEncoding = errors.New("the value is not encoded as the class says")

// Contents returns what the object's file holds.
//
// A key is looked up in the data of a kv version 2 secret, or else in the
// response's data. Strings are given as they are, after the object's encoding is
// undone; other values as JSON, with numbers as the store wrote them.
func Contents(answer *store.Answer, o params.Object) ([]byte, error) {
	data, _, versioned := answer.Versioned()
	if !versioned {
		data = answer.Data()
	}
	if o.Key == "" {
		switch o.Format {
		case params.Data:
			return marshal(data)
		default:
			return answer.Envelope(o.Format == params.Raw)
		}
	}
	value, ok := data[o.Key]
	if !ok {
		return nil, &KeyError{Key: o.Key}
	}
	contents, err := bytesOf(value)
	if err != nil {
		return nil, err
	}
	return decode(contents, o.Encoding)
}

func bytesOf(value any) ([]byte, error) {
	if text, ok := value.(string); ok {
		return []byte(text), nil
	}
	return marshal(value)
}

func marshal(value any) ([]byte, error) {
	contents, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encode as JSON: %w", err)
	}
	return contents, nil
}

func decode(contents []byte, encoding params.Encoding) ([]byte, error) {
	var decoded []byte
	var err error
	switch encoding {
	case params.Base64:
		decoded, err = base64.StdEncoding.DecodeString(strings.TrimSpace(string(contents)))
	case params.Hex:
		decoded, err = hex.DecodeString(strings.TrimSpace(string(contents)))
	default:
		return contents, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: not %s", ErrEncoding, encoding)
	}
	return decoded, nil
}
