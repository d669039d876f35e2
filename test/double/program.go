package double

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-dev/postern/test/token"
)

// IssuerFlags say by flags which issuer of tokens is known from the start.
type IssuerFlags struct {
	url, jwks, caFile, tokenFile string
}

// Add adds the flags.
func (f *IssuerFlags) Add(flags *flag.FlagSet) {
	flags.StringVar(&f.url, "issuer", "", "`URL` of an OIDC issuer to trust")
	flags.StringVar(&f.jwks, "issuer-jwks", "", "`URL or file` of its keys")
	flags.StringVar(&f.caFile, "issuer-ca", "", "`file` of certificates to trust it by")
	flags.StringVar(&f.tokenFile, "issuer-token-file", "", "`file` of a bearer token to read its keys with")
}

// Read returns the issuer, if the flags say one.
func (f *IssuerFlags) Read() (issuer token.Issuer, ok bool, err error) {
	if f.url == "" {
		return token.Issuer{}, false, nil
	}
	issuer.URL = f.url
	for _, file := range []struct {
		name string
		to   *string
	}{{f.caFile, &issuer.CAPEM}, {f.tokenFile, &issuer.BearerToken}} {
		if file.name == "" {
			continue
		}
		contents, err := os.ReadFile(file.name)
		if err != nil {
			return token.Issuer{}, false, fmt.Errorf("read about the issuer: %w", err)
		}
		*file.to = strings.TrimSpace(string(contents))
	}
	if strings.HasPrefix(f.jwks, "http://") || strings.HasPrefix(f.jwks, "https://") {
		issuer.JWKSURL = f.jwks
	} else if f.jwks != "" {
		if issuer.JWKS, err = os.ReadFile(f.jwks); err != nil {
			return token.Issuer{}, false, fmt.Errorf("read the issuer's keys: %w", err)
		}
	}
	return issuer, true, nil
}

// Ready prints a double's addresses as a line of JSON, and writes them to a file
// if it has a name.
func Ready(addresses any, file string, stdout io.Writer) error {
	line, err := json.Marshal(addresses)
	if err != nil {
		return err
	}
	if file != "" {
		if err := WriteFile(file, line); err != nil {
			return fmt.Errorf("write the ready file: %w", err)
		}
	}
	_, err = fmt.Fprintf(stdout, "%s\n", line)
	return err
}

// WriteFile writes a file that is there as a whole or not at all.
func WriteFile(name string, contents []byte) error {
	temporary := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".tmp")
	if err := os.WriteFile(temporary, contents, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, name)
}
