package content

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/postern-dev/postern/providers/azure/internal/params"
)

// checkKey checks that a block is the private key of a certificate, in PKCS #8.
func checkKey(t *testing.T, der, certificate []byte) {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(certificate)
	if err != nil {
		t.Fatal(err)
	}
	public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if signer, is := key.(crypto.Signer); !is || !ok || !public.Equal(signer.Public()) {
		t.Error("the key is not that of the first certificate")
	}
}

// The files of openssl have their certificates in the order leaf, root, intermediate.
func TestOpenSSL(t *testing.T) {
	t.Parallel()
	for name, chain := range map[string]string{
		"rsa-modern": "rsa", "rsa-legacy": "rsa", "rsa-triple-des": "rsa", "rsa-aes128": "rsa", "rsa-plain": "rsa",
		"ecdsa-modern": "ecdsa", "ecdsa-legacy": "ecdsa", "ed25519-modern": "ed25519", "ed25519-legacy": "ed25519",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ordered := fixture(t, chain+".pem")
			_, want := blocks(t, ordered)
			for _, construct := range []bool{true, false} {
				files, warnings, err := Files("c", params.Object{Type: params.Secret, Format: params.PEM},
					backed(typePFX, text(fixture(t, name+".pfx"))), Options{ConstructPEMChain: construct})
				if err != nil || len(files) != 1 || len(warnings) > 0 {
					t.Fatal(files, warnings, err)
				}
				types, got := blocks(t, files[0].Contents.Reveal())
				if diff := cmp.Diff([]string{"PRIVATE KEY", "CERTIFICATE", "CERTIFICATE", "CERTIFICATE"}, types); diff != "" {
					t.Fatal(diff)
				}
				checkKey(t, got[0], want[0])
				if !construct {
					slices.Reverse(got[2:])
				}
				if diff := cmp.Diff(want, got[1:]); diff != "" {
					t.Errorf("construct %v: another order: %s", construct, diff)
				}
			}
		})
	}
}

func TestPFXInSeparateFiles(t *testing.T) {
	t.Parallel()
	der := fixture(t, "ecdsa-modern.pfx")
	certificates := string(fixture(t, "ecdsa.pem"))
	opts := Options{ConstructPEMChain: true, SeparateFiles: true}
	var key string
	for name, tt := range map[string]struct {
		format   params.Format
		encoding params.Encoding
		want     func() string
	}{
		"pem":           {params.PEM, "", func() string { return key + certificates }},
		"pfx":           {params.PFX, "", func() string { return string(text(der)) }},
		"pfx as utf-8":  {params.PFX, params.UTF8, func() string { return string(text(der)) }},
		"pfx in binary": {params.PFX, params.Base64, func() string { return string(der) }},
	} {
		o := params.Object{Type: params.Secret, Format: tt.format, Encoding: tt.encoding, Mode: 0o400}
		files, warnings, err := Files("c", o, backed(typePFX, text(der)), opts)
		if err != nil || len(warnings) > 0 {
			t.Fatal(name, warnings, err)
		}
		got := contents(files)
		key = got["c.key"]
		types, ders := blocks(t, []byte(key))
		if len(types) != 1 || types[0] != "PRIVATE KEY" {
			t.Fatalf("%s: .key has %v", name, types)
		}
		_, chain := blocks(t, []byte(certificates))
		checkKey(t, ders[0], chain[0])
		if diff := cmp.Diff(map[string]string{"c.crt": certificates, "c.key": key, "c": tt.want()}, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		for _, f := range files {
			if f.Mode != 0o400 {
				t.Errorf("%s: %s has mode %o", name, f.Path, f.Mode)
			}
		}
	}
}

// A PFX that is wanted as it is need not be one that can be decoded.
func TestPFXAsItIs(t *testing.T) {
	t.Parallel()
	for encoding, want := range map[params.Encoding]string{params.UTF8: "c2VjcmV0", params.Base64: "secret"} {
		o := params.Object{Type: params.Secret, Format: params.PFX, Encoding: encoding}
		files, _, err := Files("c", o, backed(typePFX, []byte("c2VjcmV0")), Options{ConstructPEMChain: true})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"c": want}, contents(files)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestPFXWithoutKey(t *testing.T) {
	t.Parallel()
	want := string(fixture(t, "rsa.pem"))
	_, chain := blocks(t, []byte(want))
	for _, name := range []string{"rsa-modern-nokey", "rsa-legacy-nokey", "rsa-plain-nokey"} {
		for _, construct := range []bool{true, false} {
			files, warnings, err := Files("c", params.Object{Type: params.Secret},
				backed(typePFX, text(fixture(t, name+".pfx"))), Options{ConstructPEMChain: construct, SeparateFiles: true})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if diff := cmp.Diff([]string{"there is no .key: the vault does not give the certificate's key away"}, warnings); diff != "" {
				t.Error(diff)
			}
			got := contents(files)
			if len(got) != 2 || got["c"] != got["c.crt"] {
				t.Errorf("%s: files %v", name, files)
			}
			_, certificates := blocks(t, []byte(got["c"]))
			if construct && got["c"] != want || len(certificates) != len(chain) {
				t.Errorf("%s: not the certificates in order", name)
			}
		}
	}
}

func TestIncompleteChain(t *testing.T) {
	t.Parallel()
	root := issue(t, "root", nil, true)
	middle := issue(t, "middle", root, true)
	leaf := issue(t, "leaf", middle, true)
	der, err := pkcs12.Modern2023.Encode(leaf.key, root.cert, []*x509.Certificate{leaf.cert, leaf.cert}, "")
	if err != nil {
		t.Fatal(err)
	}
	for construct, want := range map[bool][]string{
		true:  {"the certificates are not one chain, each signed by the next: they keep the order that they have in the PFX"},
		false: nil,
	} {
		files, warnings, err := Files("c", params.Object{Type: params.Secret}, backed(typePFX, text(der)), Options{ConstructPEMChain: construct})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, warnings); diff != "" {
			t.Error(diff)
		}
		_, got := blocks(t, files[0].Contents.Reveal())
		if diff := cmp.Diff([][]byte{root.cert.Raw, leaf.cert.Raw, leaf.cert.Raw}, got[1:]); diff != "" {
			t.Error(diff)
		}
	}
}

// pfxOf encodes parts without encryption.
func pfxOf(t *testing.T, version int, parts ...[]safeBag) []byte {
	t.Helper()
	marshal := func(v any) []byte {
		der, err := asn1.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	data := func(der []byte) contentInfo {
		c, err := dataOf(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var infos []contentInfo
	for _, bags := range parts {
		infos = append(infos, data(marshal(bags)))
	}
	return marshal(struct {
		Version int
		Content contentInfo
	}{version, data(marshal(infos))})
}

// certBag is a bag of a certificate.
func certBag(t *testing.T, der []byte) safeBag {
	t.Helper()
	octets, err := asn1.Marshal(der)
	if err != nil {
		t.Fatal(err)
	}
	bag, err := asn1.Marshal(struct {
		ID   asn1.ObjectIdentifier
		Data asn1.RawValue
	}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 22, 1}, explicit(octets)})
	if err != nil {
		t.Fatal(err)
	}
	return safeBag{ID: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 3}, Value: explicit(bag)}
}

func keyBag(t *testing.T) safeBag {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return safeBag{ID: oidKeyBag(), Value: explicit(der)}
}

func TestNoPFX(t *testing.T) {
	t.Parallel()
	cert, key := certBag(t, issue(t, "c", nil, true).cert.Raw), keyBag(t)
	deep := asn1.RawValue{Class: 0, Tag: asn1.TagSequence, IsCompound: true}
	for range maxDepth + 1 {
		der, err := asn1.Marshal(deep)
		if err != nil {
			t.Fatal(err)
		}
		deep.Bytes = der
	}
	const damaged, holds = "its PFX cannot be decoded: it is damaged, or no PFX", "its PFX cannot be decoded: it must hold one private key"
	for name, tt := range map[string]struct {
		der  []byte
		want string
	}{
		"password":       {fixture(t, "rsa-password.pfx"), "its PFX has a password: the vault's own have none"},
		"slow":           {fixture(t, "rsa-slow.pfx"), "its PFX has a password hashed more than 1000000 times"},
		"version":        {pfxOf(t, 4, []safeBag{key, cert}), damaged},
		"trailing":       {append(pfxOf(t, 3, []safeBag{key, cert}), 0), damaged},
		"deep":           {pfxOf(t, 3, []safeBag{key, cert, {ID: oidData(), Value: explicit(deep.Bytes)}}), damaged},
		"two keys":       {pfxOf(t, 3, []safeBag{key, key, cert}), holds},
		"no certificate": {pfxOf(t, 3, []safeBag{key}), holds},
		"empty":          {pfxOf(t, 3, []safeBag{}), holds},
		"no parts":       {pfxOf(t, 3), "its PFX has a form that is not supported"},
		"three parts":    {pfxOf(t, 3, []safeBag{cert}, []safeBag{cert}, []safeBag{cert}), "its PFX has a form that is not supported"},
		"no X.509":       {pfxOf(t, 3, []safeBag{key, certBag(t, []byte("s3cret"))}), holds},
	} {
		_, err := decodePFX(text(tt.der))
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
	if b, err := decodePFX(text(pfxOf(t, 3, []safeBag{key}, []safeBag{cert}))); err != nil || b.key == nil || len(b.certificates) != 1 {
		t.Errorf("of a key and a certificate: %v", err) // else the above proves nothing
	}
}

// Every number that says how often to hash is bounded: that of the MAC, too.
func TestSlowMAC(t *testing.T) {
	t.Parallel()
	leaf := issue(t, "leaf", nil, true)
	for iterations, want := range map[int]string{maxIterations: "", maxIterations + 1: "its PFX has a password hashed more than 1000000 times"} {
		var pfx struct {
			Version int
			Content contentInfo
			MAC     struct {
				Digest     asn1.RawValue
				Salt       []byte
				Iterations int `asn1:"optional"`
			}
		}
		der, err := pkcs12.LegacyDES.Encode(leaf.key, leaf.cert, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := asn1.Unmarshal(der, &pfx); err != nil {
			t.Fatal(err)
		}
		pfx.MAC.Iterations = iterations
		if der, err = asn1.Marshal(pfx); err != nil {
			t.Fatal(err)
		}
		got := ""
		if _, err := readParts(der); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%d times: %q, want %q", iterations, got, want)
		}
	}
}

// A PFX whose MAC is wrong is not read as one without a key.
func TestDamagedPFX(t *testing.T) {
	t.Parallel()
	der := fixture(t, "rsa-modern-nokey.pfx")
	der[len(der)-11] ^= 1 // in the MAC's salt
	if _, err := decodePFX(text(der)); err == nil || !strings.HasPrefix(err.Error(), "its PFX has a password") {
		t.Error(err)
	}
}

// Errors of PFX hold nothing of what is in them.
func TestPFXErrorsHoldNoContents(t *testing.T) {
	t.Parallel()
	der := pfxOf(t, 3, []safeBag{keyBag(t), certBag(t, []byte("s3cret"))})
	_, _, err := Files("c", params.Object{Type: params.Secret}, backed(typePFX, text(der)), Options{})
	if err == nil || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), base64.StdEncoding.EncodeToString(der)) {
		t.Error(err)
	}
}
