package secretdata

import (
	"bytes"
	"encoding/json"
)

// The types of Secrets that the API server knows. Others are not checked.
const (
	typeOpaque              = "Opaque"
	typeTLS                 = "kubernetes.io/tls"
	typeDockerConfigJSON    = "kubernetes.io/dockerconfigjson"
	typeDockerConfig        = "kubernetes.io/dockercfg"
	typeBasicAuth           = "kubernetes.io/basic-auth"
	typeSSHAuth             = "kubernetes.io/ssh-auth"
	typeServiceAccountToken = "kubernetes.io/service-account-token" //nolint:gosec // the name of a type, no credential
)

const (
	keyDockerConfigJSON = ".dockerconfigjson"
	keyDockerConfig     = ".dockercfg"
	keyUsername         = "username"
	keyPassword         = "password"
	keySSHPrivateKey    = "ssh-privatekey"
	keyToken            = "token"

	annotationServiceAccount = "kubernetes.io/service-account.name"
)

// checkType checks what the API server asks of a Secret of this type.
func checkType(secret Secret, sources map[string]source, found *problems) {
	need := func(key string) bool {
		_, ok := sources[key]
		if !ok {
			found.add("data", "has no key %q, which type %s needs: name the file for it", key, secret.Type)
		}
		return ok
	}
	switch secret.Type {
	case typeTLS:
		need(keyCertificate)
		need(keyPrivateKey)
	case typeDockerConfigJSON:
		if need(keyDockerConfigJSON) {
			checkJSON(keyDockerConfigJSON, sources, found)
		}
	case typeDockerConfig:
		if need(keyDockerConfig) {
			checkJSON(keyDockerConfig, sources, found)
		}
	case typeBasicAuth:
		_, hasUsername := sources[keyUsername]
		_, hasPassword := sources[keyPassword]
		if !hasUsername && !hasPassword {
			found.add("data", "has neither key %q nor %q, and type %s needs one of them", keyUsername, keyPassword, secret.Type)
		}
	case typeSSHAuth:
		if need(keySSHPrivateKey) {
			checkNotEmpty(keySSHPrivateKey, sources, found)
		}
	case typeServiceAccountToken:
		checkServiceAccountToken(secret, sources, need, found)
	}
}

// checkServiceAccountToken keeps the cluster's token controller from writing to
// the Secret: it would issue a token of its own where there is none, and replace
// ca.crt, again and again.
func checkServiceAccountToken(secret Secret, sources map[string]source, need func(key string) bool, found *problems) {
	if secret.Annotations[annotationServiceAccount] == "" {
		found.add("annotations", "have no %q, which type %s needs: name the service account", annotationServiceAccount, secret.Type)
	}
	if need(keyToken) {
		checkNotEmpty(keyToken, sources, found)
	}
	if s, ok := sources[keyCA]; ok {
		found.add(s.field, "makes key %q, which the cluster itself writes in a Secret of type %s: remove it, or use type %s",
			keyCA, secret.Type, typeOpaque)
	}
}

func checkNotEmpty(key string, sources map[string]source, found *problems) {
	if s := sources[key]; !s.missing && s.file.Contents.IsZero() {
		found.addKey(key, s, "is empty")
	}
}

func checkJSON(key string, sources map[string]source, found *problems) {
	s := sources[key]
	contents := s.file.Contents.Reveal()
	isObject := bytes.HasPrefix(bytes.TrimLeft(contents, " \t\r\n"), []byte("{")) && json.Valid(contents)
	if !s.missing && !isObject {
		found.addKey(key, s, "is not a JSON object")
	}
}
