package content

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-dev/postern/providers/azure/internal/keyvault"
	"github.com/postern-dev/postern/providers/azure/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// contents are the contents of files by path.
func contents(files []File) map[string]string {
	all := make(map[string]string)
	for _, f := range files {
		all[f.Path] = string(f.Contents.Reveal())
	}
	return all
}

func secret(value string) keyvault.Object {
	return keyvault.Object{Type: params.Secret, Value: sdk.NewSecret([]byte(value))}
}

// backed is a certificate's secret.
func backed(contentType string, value []byte) keyvault.Object {
	return keyvault.Object{
		Type: params.Secret, Value: sdk.NewSecret(bytes.Clone(value)), ContentType: contentType, CertificateBacked: true,
	}
}

func TestSecret(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		value    string
		encoding params.Encoding
		want     string // "" for the error
		err      string
	}{
		"text":         {value: "s3cret\n", want: "s3cret\n"},
		"utf-8":        {value: "ü\x00\xff", encoding: params.UTF8, want: "ü\x00\xff"},
		"looks like":   {value: "c2VjcmV0", encoding: params.UTF8, want: "c2VjcmV0"},
		"hex":          {value: "00fF10", encoding: params.Hex, want: "\x00\xff\x10"},
		"base64":       {value: "c2Vj\ncmV0", encoding: params.Base64, want: "secret"},
		"padded":       {value: "c2VjcmU=", encoding: params.Base64, want: "secre"},
		"no hex":       {value: "s3cret", encoding: params.Hex, err: "its text is not hex, as objectEncoding says"},
		"odd hex":      {value: "123", encoding: params.Hex, err: "its text is not hex, as objectEncoding says"},
		"no base64":    {value: "s3cret!", encoding: params.Base64, err: "its text is not base64, as objectEncoding says"},
		"not padded":   {value: "c2VjcmU", encoding: params.Base64, err: "its text is not base64, as objectEncoding says"},
		"URL's base64": {value: "_-_-", encoding: params.Base64, err: "its text is not base64, as objectEncoding says"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := secret(tt.value)
			v.ContentType = "application/x-pkcs12" // of a secret that is nobody's certificate it means nothing
			o := params.Object{Type: params.Secret, Encoding: tt.encoding, Mode: 0o600}
			files, warnings, err := Files("dir/s", o, v, Options{ConstructPEMChain: true, SeparateFiles: true})
			if tt.err != "" {
				if err == nil || err.Error() != tt.err || files != nil {
					t.Fatalf("%v, %v, want %s", files, err, tt.err)
				}
				return
			}
			if err != nil || len(warnings) > 0 {
				t.Fatal(err, warnings)
			}
			if diff := cmp.Diff(map[string]string{"dir/s": tt.want}, contents(files)); diff != "" {
				t.Error(diff)
			}
			if files[0].Mode != 0o600 {
				t.Errorf("mode %o, want 0600", files[0].Mode)
			}
		})
	}
}

// pemOf is a certificate's secret as a vault has it, with line ends and order of its
// own.
func pemOf(t *testing.T) (certificates, key, all string) {
	t.Helper()
	root := issue(t, "root", nil, true)
	leaf := issue(t, "leaf", root, true)
	certificates = string(encodePEM("CERTIFICATE", root.cert.Raw)) + string(encodePEM("CERTIFICATE", leaf.cert.Raw))
	key = string(encodePEM("EC PRIVATE KEY", []byte("a key")))
	all = strings.ReplaceAll(certificates, "\n", "\r\n") + "\n" + string(encodePEM("EC PARAMETERS", []byte("a curve"))) + key
	return certificates, key, all
}

func TestPEMStaysAsItIs(t *testing.T) {
	t.Parallel()
	certificates, key, all := pemOf(t)
	for name, tt := range map[string]struct {
		kind     string
		format   params.Format
		opts     Options
		want     map[string]string
		warnings []string
	}{
		"one file": {"application/x-pem-file", params.PEM, Options{ConstructPEMChain: true}, map[string]string{"c": all}, nil},
		"any case": {" Application/X-PEM-file", params.PEM, Options{}, map[string]string{"c": all}, nil},
		"three files": {
			"application/x-pem-file", params.PEM,
			Options{ConstructPEMChain: true, SeparateFiles: true},
			map[string]string{"c": all, "c.crt": certificates, "c.key": key},
			nil,
		},
		"PFX wanted": {
			"application/x-pem-file", params.PFX,
			Options{},
			map[string]string{"c": all},
			[]string{"objectFormat pfx has no effect: the vault holds the certificate as PEM"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := params.Object{Type: params.Secret, Format: tt.format, Mode: 0o400}
			files, warnings, err := Files("c", o, backed(tt.kind, []byte(all)), tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, contents(files)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.warnings, warnings); diff != "" {
				t.Error(diff)
			}
			for i, f := range files {
				if f.Mode != 0o400 || i == len(files)-1 && f.Path != "c" {
					t.Errorf("file %d is %s with mode %o", i, f.Path, f.Mode)
				}
			}
		})
	}
}

func TestPEMWithoutKey(t *testing.T) {
	t.Parallel()
	certificates, _, _ := pemOf(t)
	files, warnings, err := Files("c", params.Object{Type: params.Secret}, backed(typePEM, []byte(certificates)), Options{SeparateFiles: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"c": certificates, "c.crt": certificates}, contents(files)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"there is no .key: the vault does not give the certificate's key away"}, warnings); diff != "" {
		t.Error(diff)
	}
}

func TestNoCertificate(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		kind, value string
		encoding    params.Encoding
		opts        Options
		want        string
	}{
		"no content type": {"", "s3cret", "", Options{}, "failed to get certificate. unknown content type ''"},
		"content type":    {"text/plain", "s3cret", "", Options{}, "failed to get certificate. unknown content type 'text/plain'"},
		"no PEM":          {typePEM, "s3cret", "", Options{SeparateFiles: true}, "its text has no certificate in PEM"},
		"PEM as base64":   {typePEM, "-----", params.Base64, Options{}, "its text is not base64"},
		"no base64":       {typePFX, "s3cret", "", Options{}, "its PFX is not base64"},
		"no PFX":          {typePFX, "c2VjcmV0", "", Options{}, "its PFX cannot be decoded: it is damaged, or no PFX"},
		"empty":           {typePFX, "", "", Options{}, "its PFX cannot be decoded: it is damaged, or no PFX"},
		"too long":        {typePFX, strings.Repeat("A", maxPFX+1), "", Options{}, "its PFX is longer than 262144 bytes"},
	} {
		o := params.Object{Type: params.Secret, Encoding: tt.encoding}
		files, _, err := Files("c", o, backed(tt.kind, []byte(tt.value)), tt.opts)
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) || files != nil {
			t.Errorf("%s: %v, %v, want %s", name, files, err, tt.want)
		}
	}
}

func TestUnknownType(t *testing.T) {
	t.Parallel()
	files, _, err := Files("c", params.Object{Type: "x"}, secret("s3cret"), Options{})
	if err == nil || err.Error() != `an object of type "x" has no form in a file` || files != nil {
		t.Errorf("%v, %v", files, err)
	}
}

// Whatever is printed, contents are not.
func TestFilePrintsNoContents(t *testing.T) {
	t.Parallel()
	files, _, err := Files("c", params.Object{Type: params.Secret}, secret("s3cret"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", files)
		fmt.Fprintf(&out, verb+"\n", struct{ f *File }{&files[0]})
		fmt.Fprintf(&out, verb+"\n", struct{ f File }{files[0]})
	}
	encoded, err := json.Marshal(files)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(encoded)
	slog.New(slog.NewTextHandler(&out, nil)).Info("files", slog.Any("files", files))
	slog.New(slog.NewJSONHandler(&out, nil)).Info("files", slog.Any("files", files))
	for _, form := range []string{"s3cret", fmt.Sprintf("%x", "s3cret"), "115 51 99 114", "czNjcmV0"} {
		if strings.Contains(out.String(), form) {
			t.Errorf("printed %q:\n%s", form, out.String())
		}
	}
}
