package secretdata_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/postern-dev/postern/driver/internal/secretdata"
)

// buildPFX makes a TLS Secret of one file for both keys.
func buildPFX(contents string) (secretdata.Secret, error) {
	return secretdata.Build(object(typeTLS, "pfx", "tls.crt", "pfx", "tls.key"), []secretdata.File{file("pfx", contents)})
}

func TestBuild_PFX(t *testing.T) {
	t.Parallel()
	for keyName, key := range map[string]crypto.Signer{"RSA": newRSA(t), "ECDSA": newECDSA(t, elliptic.P384()), "Ed25519": newEd25519(t)} {
		p := newPKI(t, key)
		for encoderName, encoder := range map[string]*pkcs12.Encoder{
			"RC2": pkcs12.LegacyRC2, "triple DES": pkcs12.LegacyDES, "AES": pkcs12.Modern2023, "plain": pkcs12.Passwordless,
		} {
			t.Run(keyName+", "+encoderName, func(t *testing.T) {
				t.Parallel()
				binary, err := encoder.Encode(key, p.leaf, []*x509.Certificate{p.root, p.intermediate}, "")
				if err != nil {
					t.Fatal(err)
				}
				text := base64.StdEncoding.EncodeToString(binary)
				for name, contents := range map[string]string{
					"binary": string(binary), "base64": text, "base64 in lines": text[:64] + "\r\n" + text[64:] + "\n",
				} {
					secret, err := buildPFX(contents)
					if err != nil {
						t.Errorf("%s: %v", name, err)
						continue
					}
					checkPair(t, secret, "leaf", "intermediate", "root")
					if got := string(secret.Data["tls.key"].Reveal()); got != block("PRIVATE KEY", pkcs8(t, key)) {
						t.Errorf("%s: tls.key is not the key in PKCS#8: %.40s", name, got)
					}
				}
			})
		}
	}
}

func TestBuild_PFXOfOpenSSL(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("there is no openssl on this machine; the other tests use files of another maker")
	}
	dir := t.TempDir()
	key := newRSA(t)
	p := newPKI(t, key)
	for name, contents := range map[string]string{
		"key": block("PRIVATE KEY", pkcs8(t, key)), "leaf": certificates(p.leaf), "chain": certificates(p.intermediate, p.root),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(contents), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, options := range map[string]string{
		"default":       "",
		"legacy":        "-legacy",
		"triple DES":    "-certpbe PBE-SHA1-3DES -keypbe PBE-SHA1-3DES -macalg sha1",
		"AES-128":       "-certpbe AES-128-CBC -keypbe AES-128-CBC",
		"no MAC":        "-nomac",
		"no encryption": "-certpbe NONE -keypbe NONE",
		"many rounds":   "-iter 100000",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := strings.Fields("pkcs12 -export -passout pass: -inkey key -in leaf -certfile chain " + options)
			command := exec.CommandContext(t.Context(), openssl, args...)
			command.Dir = dir
			var problems strings.Builder
			command.Stderr = &problems
			binary, err := command.Output()
			if err != nil {
				t.Skipf("this openssl does not make it: %v: %s", err, problems.String())
			}
			secret, err := buildPFX(string(binary))
			if err != nil {
				t.Fatal(err)
			}
			checkPair(t, secret, "leaf", "intermediate", "root")
		})
	}
}

// Some tools take "no password" to be no bytes, others an empty text. It makes a
// difference for the old encryptions.
func TestBuild_PFXOfNoPassword(t *testing.T) {
	t.Parallel()
	key := newEd25519(t)
	p := newPKI(t, key)
	for name, password := range map[string][]byte{"empty text": {0, 0}, "no bytes": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			with := legacy(password, 2048)
			secret, err := buildPFX(craft(t, nil,
				encryptedPart(t, with, certBag(t, p.leaf), certBag(t, p.intermediate)),
				plainPart(t, shroudedBag(t, pkcs8(t, key), with))))
			if err != nil {
				t.Fatal(err)
			}
			checkPair(t, secret, "leaf", "intermediate")
		})
	}
}

func TestBuild_PFXRefuses(t *testing.T) {
	t.Parallel()
	key := newEd25519(t)
	p := newPKI(t, key)
	encoded := func(encoder *pkcs12.Encoder) string {
		binary, err := encoder.Encode(key, p.leaf, nil, "hunter2")
		if err != nil {
			t.Fatal(err)
		}
		return string(binary)
	}
	with := modern(1)
	good := shroudedBag(t, pkcs8(t, key), with)
	whole := craft(t, nil, plainPart(t, certBag(t, p.leaf), good))
	for name, tc := range map[string]struct{ contents, want string }{
		"password, AES":        {encoded(pkcs12.Modern2023), "cannot be read with an empty password"},
		"password, triple DES": {encoded(pkcs12.LegacyDES), "cannot be read with an empty password"},
		"password, RC2":        {encoded(pkcs12.LegacyRC2), "cannot be read with an empty password"},
		"cut off":              {whole[:len(whole)-1], "is neither PEM nor a PKCS#12 file"},
		"more than a file":     {whole + "x", "is neither PEM nor a PKCS#12 file"},
		"not quite base64":     {base64.StdEncoding.EncodeToString([]byte(whole)) + "*", "is neither PEM nor a PKCS#12 file"},
		"no key":               {craft(t, nil, plainPart(t, certBag(t, p.leaf))), "with 0 parts that have a private key"},
		"key hidden":           {craft(t, nil, encryptedPart(t, with, certBag(t, p.leaf), good)), "with 0 parts that have a private key"},
		"keys in two parts":    {craft(t, nil, plainPart(t, good), plainPart(t, certBag(t, p.leaf), good)), "with 2 parts that have a private key"},
		"two keys":             {craft(t, nil, plainPart(t, certBag(t, p.leaf), good, good)), "cannot be read with an empty password"},
		"no certificate":       {craft(t, nil, plainPart(t, good)), "cannot be read with an empty password"},
		"too many parts":       {craft(t, nil, plainPart(t, good), plainPart(t, certBag(t, p.leaf)), plainPart(t)), "of a kind that is not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := buildPFX(tc.contents)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Build: %v\nwant ... %s ...", err, tc.want)
			}
		})
	}
}

// A file says how much work it takes to derive its keys, and may say 2³¹: some
// ten minutes of a processor. None of these may be believed.
func TestBuild_PFXCostsLittle(t *testing.T) {
	t.Parallel()
	const most, years = 600_000, 1<<31 - 1
	key := newEd25519(t)
	p := newPKI(t, key)
	cheap, dear := modern(1), modern(years)
	der := pkcs8(t, key)
	goodKey, goodPart := shroudedBag(t, der, cheap), encryptedPart(t, cheap, certBag(t, p.leaf))
	const refused = "asks for 2147483647 iterations, and may ask for 600000"
	for name, tc := range map[string]struct{ contents, want string }{
		"MAC":          {craft(t, craftedMAC(t, years), goodPart, plainPart(t, goodKey)), ""},
		"one too many": {craft(t, nil, plainPart(t, certBag(t, p.leaf), shroudedBag(t, der, modern(most+1)))), "asks for 600001 iterations"},
		// It is tried, and has less than it says.
		"as many as may be":    {craft(t, nil, plainPart(t, certBag(t, p.leaf), shroudedBag(t, der, modern(most)))), "cannot be read with an empty password"},
		"certificates":         {craft(t, nil, encryptedPart(t, dear, certBag(t, p.leaf)), plainPart(t, goodKey)), refused},
		"certificates, legacy": {craft(t, nil, encryptedPart(t, legacy(nil, years), certBag(t, p.leaf)), plainPart(t, goodKey)), refused},
		"key":                  {craft(t, nil, goodPart, plainPart(t, shroudedBag(t, der, dear))), refused},
		"key, legacy":          {craft(t, nil, goodPart, plainPart(t, shroudedBag(t, der, legacy(nil, years)))), refused},
		"second key":           {craft(t, nil, goodPart, plainPart(t, goodKey, shroudedBag(t, der, dear))), refused},
		"key that is hidden": {
			craft(t, nil, encryptedPart(t, cheap, certBag(t, p.leaf), shroudedBag(t, der, dear)), plainPart(t, goodKey)),
			"cannot be read with an empty password",
		},
		"key that is hidden and alone": {
			craft(t, nil, encryptedPart(t, cheap, certBag(t, p.leaf), shroudedBag(t, der, dear))),
			"with 0 parts that have a private key",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			done := make(chan error, 1)
			go func() {
				_, err := buildPFX(tc.contents)
				done <- err
			}()
			select {
			case err := <-done:
				if err == nil && tc.want != "" || err != nil && (tc.want == "" || !strings.Contains(err.Error(), tc.want)) {
					t.Errorf("Build: %v\nwant %q", err, tc.want)
				}
			case <-time.After(2 * time.Minute):
				t.Fatal("still deriving keys")
			}
		})
	}
}

// A PFX may hold a chain and no leaf that fits, as any other file.
func TestBuild_PFXBesidePEM(t *testing.T) {
	t.Parallel()
	key := newEd25519(t)
	p := newPKI(t, key)
	binary, err := pkcs12.Modern2023.Encode(key, p.leaf, []*x509.Certificate{p.intermediate}, "")
	if err != nil {
		t.Fatal(err)
	}
	o := object(typeTLS, "pem", "tls.crt", "pfx", "tls.key", "pfx", "ca.crt")
	secret, err := secretdata.Build(o, []secretdata.File{file("pfx", string(binary)), file("pem", certificates(p.root, p.leaf))})
	if err != nil {
		t.Fatal(err)
	}
	checkPair(t, secret, "leaf", "root")
	if got := names(t, secret.Data["ca.crt"].Reveal()); len(got) != 2 {
		t.Errorf("ca.crt has %v", got)
	}
	if rest, _ := pem.Decode(secret.Data["tls.key"].Reveal()); rest == nil || rest.Type != "PRIVATE KEY" {
		t.Error("tls.key has no key")
	}
}
