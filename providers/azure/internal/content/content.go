// Package content makes the files of objects of a vault.
//
// A secret becomes what it is; that of a certificate becomes PEM, first the key and
// then the certificates, each before the one that signed it; a key becomes its
// public half, and a certificate itself, in PEM. No error and no warning holds
// anything of the contents.
package content

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-dev/postern/providers/azure/internal/keyvault"
	"github.com/postern-dev/postern/providers/azure/internal/params"
	"github.com/postern-dev/postern/providers/sdk"
)

// File is a file of a volume.
type File struct {
	Path string
	// Mode is zero for the request's default.
	Mode     sdk.FileMode
	Contents sdk.Secret
}

// Options are how certificates are written.
type Options struct {
	// ConstructPEMChain puts the certificates of a PFX in the order in which servers
	// send them: each before the one that signed it.
	ConstructPEMChain bool
	// SeparateFiles adds the files .crt and .key to that of a certificate's secret.
	SeparateFiles bool
}

// Content types of the secrets of certificates.
const (
	typePEM = "application/x-pem-file"
	typePFX = "application/x-pkcs12"
)

// Files makes the files of one version of an object, of which the own one is at path.
// The warnings are for the operator's log.
func Files(path string, o params.Object, v keyvault.Object, opts Options) (files []File, warnings []string, err error) {
	switch o.Type {
	case params.Secret:
		files, warnings, err = secretFiles(path, o, v, opts)
	case params.Key:
		files, err = publicFile(path, func() ([]byte, error) { return publicKey(v.Key) })
	case params.Certificate:
		files, err = publicFile(path, func() ([]byte, error) { return certificate(v.CER) })
	default:
		err = fmt.Errorf("an object of type %q has no form in a file", o.Type)
	}
	if err != nil {
		return nil, nil, err
	}
	for i := range files {
		files[i].Mode = o.Mode
	}
	return files, warnings, nil
}

// publicFile makes the file of what is no secret.
func publicFile(path string, encode func() ([]byte, error)) ([]File, error) {
	contents, err := encode()
	return []File{{Path: path, Contents: sdk.NewSecret(contents)}}, err
}

func secretFiles(path string, o params.Object, v keyvault.Object, opts Options) ([]File, []string, error) {
	text, sides := v.Value, split{}
	var warnings []string
	if v.CertificateBacked {
		form, err := certificateForms(o.Format, v, opts)
		if err != nil {
			return nil, nil, err
		}
		text, sides, warnings = form.text, form.sides, form.warnings
	}
	contents, err := decode(text, o.Encoding)
	if err != nil {
		return nil, nil, err
	}
	return append(sides.files(path), File{Path: path, Contents: contents}), warnings, nil
}

// forms are those of a certificate's secret.
type forms struct {
	// text is that of the object's own file.
	text sdk.Secret
	// sides are for files of their own, if these are wanted.
	sides    split
	warnings []string
}

func certificateForms(format params.Format, v keyvault.Object, opts Options) (forms, error) {
	switch kind := strings.TrimSpace(v.ContentType); {
	case strings.EqualFold(kind, typePEM):
		return pemForms(format, v.Value, opts)
	case strings.EqualFold(kind, typePFX):
		return pfxForms(format, v.Value, opts)
	default:
		return forms{}, fmt.Errorf("failed to get certificate. unknown content type '%.100s': it must be %s or %s", kind, typePEM, typePFX)
	}
}

// pemForms leaves the text as it is.
func pemForms(format params.Format, value sdk.Secret, opts Options) (forms, error) {
	f := forms{text: value}
	if format == params.PFX {
		f.warnings = append(f.warnings, "objectFormat pfx has no effect: the vault holds the certificate as PEM")
	}
	if opts.SeparateFiles {
		var err error
		if f.sides, err = splitPEM(value.Reveal()); err != nil {
			return forms{}, err
		}
		f.warnings = append(f.warnings, f.sides.warnings()...)
	}
	return f, nil
}

// pfxForms decodes the PFX if that is needed for one of the files.
func pfxForms(format params.Format, value sdk.Secret, opts Options) (forms, error) {
	f := forms{text: value}
	if format == params.PFX && !opts.SeparateFiles {
		return f, nil
	}
	bundle, err := decodePFX(value.Reveal())
	if err != nil {
		return forms{}, err
	}
	if opts.ConstructPEMChain {
		ordered, ok := chain(bundle.certificates)
		if ok {
			bundle.certificates = ordered
		} else {
			f.warnings = append(f.warnings, "the certificates are not one chain, each signed by the next: "+
				"they keep the order that they have in the PFX")
		}
	}
	sides, err := bundle.pem()
	if err != nil {
		return forms{}, err
	}
	if format != params.PFX {
		f.text = sdk.NewSecret(slices.Concat(sides.key, sides.certificates))
	}
	if opts.SeparateFiles {
		f.sides = sides
		f.warnings = append(f.warnings, sides.warnings()...)
	}
	return f, nil
}

// decode decodes a secret's text.
func decode(text sdk.Secret, encoding params.Encoding) (sdk.Secret, error) {
	var contents []byte
	var err error
	switch encoding {
	case params.Hex:
		contents = make([]byte, hex.DecodedLen(text.Len()))
		_, err = hex.Decode(contents, text.Reveal())
	case params.Base64:
		contents = make([]byte, base64.StdEncoding.DecodedLen(text.Len()))
		var n int
		n, err = base64.StdEncoding.Decode(contents, text.Reveal())
		contents = contents[:n]
	default:
		return text, nil
	}
	if err != nil { // of which the text quotes the contents
		return sdk.Secret{}, fmt.Errorf("its text is not %s, as objectEncoding says", encoding)
	}
	return sdk.NewSecret(contents), nil
}

var errNoContents = errors.New("the vault's answer has no contents")
