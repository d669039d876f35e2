package azure_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/postern-dev/postern/test/azure"
	"github.com/postern-dev/postern/test/azure/control"
)

func key(name, kty string) control.Key { return control.Key{Version: version(name, ""), Kty: kty} }

func TestKeys(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	p384, p521, koblitz := key("p384", "EC-HSM"), key("p521", "EC"), key("koblitz", "EC")
	p384.Curve, p521.Curve, koblitz.Curve = "P-384", "P-521", "P-256K"
	all := []control.Key{key("rsa", "RSA"), key("rsa-hsm", "RSA-HSM"), key("ec", "EC"), p384, p521, koblitz, key("oct", "oct"), key("oct-hsm", "oct-HSM")}
	applied := d.apply(t, control.Document{Keys: all})
	c := d.keys(t)
	for i, k := range all {
		got, err := c.GetKey(t.Context(), k.Name, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		encode := base64.RawURLEncoding.EncodeToString
		document := control.JSONWebKey{Kty: string(*got.Key.Kty), N: encode(got.Key.N), E: encode(got.Key.E), X: encode(got.Key.X), Y: encode(got.Key.Y)}
		if got.Key.Crv != nil {
			document.Crv = string(*got.Key.Crv)
		}
		if diff := cmp.Diff(applied.Keys[i].Key, document); diff != "" {
			t.Errorf("%s (-applied +got):\n%s", k.Name, diff)
		}
		if string(*got.Key.KID) != applied.Keys[i].ID || string(*got.Key.Kty) != k.Kty {
			t.Errorf("%s: %s of type %s", k.Name, *got.Key.KID, *got.Key.Kty)
		}
		bits, sizes := len(got.Key.N)*8, map[string]int{"": 32, "P-384": 48, "P-521": 66, "P-256K": 32}
		switch strings.TrimSuffix(k.Kty, "-HSM") {
		case "RSA":
			if bits != 2048 || len(got.Key.X) != 0 {
				t.Errorf("%s has %d bits", k.Name, bits)
			}
		case "EC":
			if len(got.Key.X) != sizes[k.Curve] || len(got.Key.Y) != sizes[k.Curve] || len(got.Key.N) != 0 {
				t.Errorf("%s has coordinates of %d and %d bytes", k.Name, len(got.Key.X), len(got.Key.Y))
			}
		default:
			if len(got.Key.N)+len(got.Key.X)+len(got.Key.K) != 0 {
				t.Errorf("%s tells of itself", k.Name)
			}
		}
	}
}

func TestKeyOfOnesOwn(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	secretDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for name, contents := range map[string][]byte{
		"public":  pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		"private": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secretDER}),
	} {
		k := key(name, "EC-HSM")
		k.PEM = string(contents)
		d.apply(t, control.Document{Keys: []control.Key{k}})
		got, err := d.keys(t).GetKey(t.Context(), name, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		made := &ecdsa.PublicKey{Curve: elliptic.P256(), X: new(big.Int).SetBytes(got.Key.X), Y: new(big.Int).SetBytes(got.Key.Y)} //nolint:staticcheck // coordinates are what there is
		if !private.PublicKey.Equal(made) || *got.Key.Kty != "EC-HSM" {
			t.Errorf("%s: another key, of type %s", name, *got.Key.Kty)
		}
	}
}

func TestListKeysAndCertificates(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	one := control.Certificate{Version: version("tls", first), Subject: "CN=a", KeyType: "EC"}
	two := control.Certificate{Version: version("tls", second), Subject: "CN=b", KeyType: "EC"}
	ed := control.Certificate{Version: version("edwards", first), KeyType: "Ed25519"}
	d.apply(t, control.Document{Keys: []control.Key{key("sign", "EC")}, Certificates: []control.Certificate{one, two, ed}, PageSize: ptr(1)})
	got := map[string][]string{}
	for pager := d.keys(t).NewListKeyPropertiesPager(nil); pager.More(); {
		page, err := pager.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range page.Value {
			name := k.KID.Name()
			if k.Managed != nil && *k.Managed {
				name += " managed"
			}
			got["keys"] = append(got["keys"], name)
		}
	}
	for pager := d.keys(t).NewListKeyPropertiesVersionsPager("tls", nil); pager.More(); {
		page, err := pager.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got["key versions"] = append(got["key versions"], page.Value[0].KID.Version())
	}
	for pager := d.certificates(t).NewListCertificatePropertiesPager(nil); pager.More(); {
		page, err := pager.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got["certificates"] = append(got["certificates"], page.Value[0].ID.Name())
	}
	for pager := d.certificates(t).NewListCertificatePropertiesVersionsPager("tls", nil); pager.More(); {
		page, err := pager.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got["certificate versions"] = append(got["certificate versions"], page.Value[0].ID.Version())
	}
	versions := got["key versions"]
	want := map[string][]string{
		"keys": {"sign", "tls managed"}, "key versions": versions,
		"certificates": {"edwards", "tls"}, "certificate versions": versions,
	}
	if diff := cmp.Diff(want, got); diff != "" || len(versions) != 2 || versions[0] == versions[1] {
		t.Errorf("lists (-want +got):\n%s", diff)
	}
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	for name, c := range map[string]control.Certificate{
		"RSA":    {Version: version("rsa", ""), Subject: "CN=shop.example", DNSNames: []string{"shop.example"}},
		"EC":     {Version: version("ec", ""), KeyType: "EC", ContentType: control.PEM},
		"modern": {Version: version("modern", ""), KeyType: "EC", Encryption: control.Modern},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			applied := d.apply(t, control.Document{Certificates: []control.Certificate{c}}).Certificates[0]
			got, err := d.certificates(t).GetCertificate(t.Context(), strings.ToUpper(c.Name), "", nil)
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := x509.ParseCertificate(got.CER)
			if err != nil {
				t.Fatal(err)
			}
			kind := c.ContentType
			if kind == "" {
				kind = control.PKCS12
			}
			if string(*got.ID) != applied.ID || got.SID.Name() != c.Name || got.KID.Version() != applied.Version || *got.Policy.SecretProperties.ContentType != kind {
				t.Errorf("certificate %+v of %s", got.Certificate, *got.ID)
			}
			stored, err := d.secrets(t).GetSecret(t.Context(), c.Name, got.SID.Version(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if string(*stored.KID) != string(*got.KID) || !*stored.Managed || *stored.ContentType != kind {
				t.Errorf("secret %+v", stored.Secret)
			}
			private, chain := decode(t, kind, *stored.Value)
			if raw, err := base64.StdEncoding.DecodeString(*stored.Value); kind == control.PKCS12 && (err != nil || bytes.Contains(raw, pbes2()) != (c.Encryption == control.Modern)) {
				t.Errorf("%v, or the other encryption than %q", err, c.Encryption)
			}
			if len(chain) != 3 || !chain[0].Equal(leaf) || !private.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(leaf.PublicKey) { //nolint:forcetypeassert // all of Go's have it
				t.Errorf("a chain of %d, and perhaps another's key", len(chain))
			}
			roots, between := x509.NewCertPool(), x509.NewCertPool()
			roots.AddCert(chain[2])
			between.AddCert(chain[1])
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: strings.Join(c.DNSNames, "")}); err != nil {
				t.Error(err)
			}
			managed, err := d.keys(t).GetKey(t.Context(), c.Name, applied.Version, nil)
			if err != nil {
				t.Fatal(err)
			}
			if k, ok := leaf.PublicKey.(*rsa.PublicKey); ok && k.N.Cmp(new(big.Int).SetBytes(managed.Key.N)) != 0 || !*managed.Managed {
				t.Errorf("key %+v", managed.KeyBundle)
			}
		})
	}
}

// pbes2 is the identifier of modern encryption, 1.2.840.113549.1.5.13, as DER.
func pbes2() []byte {
	return []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d}
}

// decode reads what the secret of a certificate holds.
func decode(t *testing.T, kind, value string) (private crypto.Signer, chain []*x509.Certificate) {
	t.Helper()
	if kind == control.PKCS12 {
		raw, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			t.Fatal(err)
		}
		key, leaf, rest, err := pkcs12.DecodeChain(raw, "")
		if err != nil {
			t.Fatal(err)
		}
		return key.(crypto.Signer), append([]*x509.Certificate{leaf}, rest...) //nolint:forcetypeassert // all of Go's are
	}
	for rest := []byte(value); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return private, chain
		}
		if block.Type == "CERTIFICATE" {
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			chain = append(chain, c)
			continue
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		private = key.(crypto.Signer) //nolint:forcetypeassert // all of Go's are
	}
}

func TestCertificatesOfOnesOwn(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	made := d.apply(t, control.Document{Certificates: []control.Certificate{{Version: version("made", ""), KeyType: "EC", ContentType: control.PEM}}}).Certificates[0]
	pfx := d.apply(t, control.Document{Certificates: []control.Certificate{{Version: version("from-pem", ""), PEM: made.SecretValue}}}).Certificates[0]
	if diff := cmp.Diff(made.CER, pfx.CER); diff != "" {
		t.Error("another certificate than that of the pem")
	}
	raw, err := base64.StdEncoding.DecodeString(pfx.SecretValue)
	if err != nil {
		t.Fatal(err)
	}
	again := d.apply(t, control.Document{Certificates: []control.Certificate{{Version: version("from-pfx", ""), PFX: raw}}}).Certificates[0]
	if again.SecretValue != pfx.SecretValue || string(again.CER) != string(made.CER) || again.ChainPEM != made.ChainPEM {
		t.Error("a pfx is not kept as it is")
	}
	odd := "# a comment\n" + made.SecretValue
	kept := d.apply(t, control.Document{Certificates: []control.Certificate{{Version: version("odd", ""), PEM: odd, ContentType: control.PEM}}}).Certificates[0]
	if kept.SecretValue != odd {
		t.Error("a pem is not kept as it is")
	}
	broken := control.Certificate{Version: version("broken", ""), KeyType: "EC", SecretValue: ptr("nonsense"), SecretContentType: ptr("")}
	d.apply(t, control.Document{Certificates: []control.Certificate{broken}})
	got, err := d.secrets(t).GetSecret(t.Context(), "broken", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if *got.Value != "nonsense" || got.ContentType != nil || got.KID == nil {
		t.Errorf("%+v", got.Secret)
	}
}

// Disabling a certificate disables its secret; what is public can be read.
func TestDisabledCertificate(t *testing.T) {
	t.Parallel()
	d := start(t, azure.Config{})
	c := control.Certificate{Version: version("tls", ""), KeyType: "EC"}
	d.apply(t, control.Document{Certificates: []control.Certificate{c}})
	c.KeyType, c.Enabled = "", ptr(false)
	applied := d.apply(t, control.Document{Certificates: []control.Certificate{c}}).Certificates[0]
	if applied.SecretValue == "" || len(applied.CER) == 0 {
		t.Errorf("applied %+v", applied.AppliedObject)
	}
	got, err := d.certificates(t).GetCertificate(t.Context(), "tls", "", nil)
	if err != nil || *got.Attributes.Enabled {
		t.Errorf("%v, %+v", err, got.Attributes)
	}
	managed, err := d.keys(t).GetKey(t.Context(), "tls", "", nil)
	if err != nil || *managed.Attributes.Enabled {
		t.Errorf("%v, %+v", err, managed.Attributes)
	}
	_, err = d.secrets(t).GetSecret(t.Context(), "tls", "", nil)
	wantError(t, err, 403, "Forbidden", "SecretDisabled")
	if err := d.Delete(t.Context(), control.Certificates, "shop", "tls"); err != nil {
		t.Fatal(err)
	}
	_, err = d.certificates(t).GetCertificate(t.Context(), "tls", "", nil)
	wantError(t, err, 404, "CertificateNotFound", "A certificate with (name/id) tls")
	_, err = d.keys(t).GetKey(t.Context(), "tls", "", nil)
	wantError(t, err, 404, "KeyNotFound", "A key with (name/id) tls")
	_, err = d.secrets(t).GetSecret(t.Context(), "tls", "", nil)
	wantError(t, err, 404, "SecretNotFound")
}
