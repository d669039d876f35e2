package chaos

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/tenant"
)

// class is a SecretProviderClass.
type class struct {
	name  string
	owner *identity
	// check returns what is wrong with the files of a volume of the class.
	check func(kubelet.Volume, map[string]kubelet.File) error
	// single is set if each pod mounts it once: what it has is issued for that.
	single bool
	// open is set if every service account of the namespace may mount it.
	open bool
}

// identity is a service account, and its secret, which changes all the time.
//
// Invariants:
//  1. No version greater than newest was ever written.
type identity struct {
	*tenant.Tenant

	canary string

	mu     sync.Mutex
	newest int
}

// rotate writes the next version of the secret.
func (i *identity) rotate(ctx context.Context) error {
	i.mu.Lock()
	i.newest++
	version := i.newest
	i.mu.Unlock()
	return i.PutSecret(ctx, "app", map[string]any{"username": i.value("username", version), "password": i.value("password", version)})
}

// value is what a key of the secret holds in a version.
func (i *identity) value(key string, version int) string {
	return fmt.Sprintf("%s/%s/%s/%d", i.canary, i.Role(), key, version)
}

// checkSecret wants the service account's own secret, of one version.
func (i *identity) checkSecret(_ kubelet.Volume, files map[string]kubelet.File) error {
	if err := wantFiles(files, map[string]uint32{"username": 0o644, "nested/password": 0o400}); err != nil {
		return err
	}
	username, err := i.version("username", files["username"].Contents)
	if err != nil {
		return err
	}
	password, err := i.version("password", files["nested/password"].Contents)
	if err != nil {
		return err
	}
	i.mu.Lock()
	newest := i.newest
	i.mu.Unlock()
	switch {
	case username != password:
		return fmt.Errorf("the username is of version %d and the password of version %d", username, password)
	case username < 1 || username > newest:
		return fmt.Errorf("the files are of version %d, and the newest is %d", username, newest)
	default:
		return nil
	}
}

// version is the version of a value, which has to be this identity's.
func (i *identity) version(key, value string) (int, error) {
	number, ok := strings.CutPrefix(value, strings.TrimSuffix(i.value(key, 0), "0"))
	if !ok {
		return 0, fmt.Errorf("the %s is %q, which is not of %s", key, value, i.Role())
	}
	return strconv.Atoi(number)
}

func (w *world) checkFile(v kubelet.Volume, files map[string]kubelet.File) error {
	if err := wantFiles(files, map[string]uint32{"token": 0o644}); err != nil {
		return err
	}
	if got, want := files["token"].Contents, w.fileToken(v.Namespace); got != want {
		return fmt.Errorf("the token is %q, want %q", got, want)
	}
	return nil
}

// serials are those of the certificates that were seen, with their volumes.
type serials struct {
	mu     sync.Mutex
	owners map[string]string
}

// checkCertificate wants a certificate with its key, issued for the service
// account, and seen in no other volume.
func (s *serials) checkCertificate(v kubelet.Volume, files map[string]kubelet.File) error {
	if err := wantFiles(files, map[string]uint32{"tls.crt": 0o644, "tls.key": 0o400}); err != nil {
		return err
	}
	pair, err := tls.X509KeyPair([]byte(files["tls.crt"].Contents), []byte(files["tls.key"].Contents))
	if err != nil {
		return fmt.Errorf("the key is not the certificate's: %w", err)
	}
	certificate, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return fmt.Errorf("parse the certificate: %w", err)
	}
	if want := v.Namespace + "-" + v.ServiceAccount; certificate.Subject.CommonName != want {
		return fmt.Errorf("the certificate is of %q, want %q", certificate.Subject.CommonName, want)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owners == nil {
		s.owners = map[string]string{}
	}
	serial := certificate.SerialNumber.String()
	if owner, ok := s.owners[serial]; ok && owner != v.UID {
		return fmt.Errorf("the certificate %s is also that of pod %s", serial, owner)
	}
	s.owners[serial] = v.UID
	return nil
}

// wantFiles wants exactly these files with these modes.
func wantFiles(files map[string]kubelet.File, want map[string]uint32) error {
	names := slices.Sorted(maps.Keys(want))
	if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, names) {
		return fmt.Errorf("the files are %q, want %q", got, names)
	}
	var errs []error
	for _, name := range names {
		if got := uint32(files[name].Mode); got != want[name] {
			errs = append(errs, fmt.Errorf("file %s has mode %#o, want %#o", name, got, want[name]))
		}
	}
	return errors.Join(errs...)
}
