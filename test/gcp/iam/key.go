package iam

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strconv"
)

// keySet publishes the public part of a key.
func keySet(id string, private *rsa.PrivateKey) json.RawMessage {
	encode := base64.RawURLEncoding.EncodeToString
	return json.RawMessage(`{"keys":[{"kty":"RSA","alg":"RS256","kid":` + strconv.Quote(id) +
		`,"n":"` + encode(private.N.Bytes()) + `","e":"` + encode(big.NewInt(int64(private.E)).Bytes()) + `"}]}`)
}
