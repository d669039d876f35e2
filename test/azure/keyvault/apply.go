package keyvault

import (
	"fmt"

	"github.com/postern-dev/postern/test/azure/control"
)

// PutSecret makes a version of a secret, or changes one.
func (s *Store) PutSecret(c control.Secret) (control.AppliedObject, error) {
	set := func(v *version) {
		if c.ContentType != nil {
			v.contentType = c.ContentType
		}
		if c.KID != "" {
			v.kid = c.KID
		}
		v.managed = v.managed || c.Managed
	}
	var fill func(*version)
	if c.Value != nil {
		fill = func(v *version) { v.value = *c.Value }
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, o, made, err := s.put(control.Secrets, c.Version, fill)
	if err != nil {
		return control.AppliedObject{}, err
	}
	set(made)
	return v.applied(control.Secrets, o, made), nil
}

// PutKey makes a version of a key, or changes one.
func (s *Store) PutKey(c control.Key) (control.AppliedKey, error) {
	var fill func(*version)
	if c.Kty != "" || c.PEM != "" {
		key, err := newKey(c)
		if err != nil {
			return control.AppliedKey{}, fmt.Errorf("key %s: %w", c.Name, err)
		}
		fill = func(v *version) { v.key = key }
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, o, made, err := s.put(control.Keys, c.Version, fill)
	if err != nil {
		return control.AppliedKey{}, err
	}
	return control.AppliedKey{AppliedObject: v.applied(control.Keys, o, made), Key: made.key.document()}, nil
}

// PutCertificate makes a version of a certificate with the secret and the key that
// it manages, or changes one.
func (s *Store) PutCertificate(c control.Certificate) (control.AppliedCertificate, error) {
	var m *material
	if c.PEM != "" || len(c.PFX) != 0 || c.Subject != "" || c.KeyType != "" || c.SecretValue != nil {
		var err error
		if m, err = newMaterial(c); err != nil {
			return control.AppliedCertificate{}, fmt.Errorf("certificate %s: %w", c.Name, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m == nil {
		return s.changeCertificate(c.Version)
	}
	v, o, made, err := s.put(control.Certificates, c.Version, func(v *version) { v.cer, v.secretType = m.cer, m.secretType })
	if err != nil {
		return control.AppliedCertificate{}, err
	}
	at := c.Version
	at.Version, at.Created = made.id, made.created
	_, _, _, err = s.put(control.Secrets, at, func(secret *version) {
		secret.value, secret.contentType, secret.managed = m.secretValue, m.contentType, true
		secret.kid = v.idOf(control.Keys, o.name, made.id)
	})
	if err == nil && m.key != nil {
		_, _, _, err = s.put(control.Keys, at, func(key *version) { key.key, key.managed = m.key, true })
	}
	if err != nil {
		return control.AppliedCertificate{}, err
	}
	return control.AppliedCertificate{
		AppliedObject: v.applied(control.Certificates, o, made), CER: m.cer, ChainPEM: m.chainPEM, SecretValue: m.secretValue,
	}, nil
}

// changeCertificate changes a version of it, its secret and its key.
func (s *Store) changeCertificate(c control.Version) (control.AppliedCertificate, error) {
	v, o, changed, err := s.put(control.Certificates, c, nil)
	if err != nil {
		return control.AppliedCertificate{}, err
	}
	c.Version = changed.id
	_, _, secret, err := s.put(control.Secrets, c, nil)
	if err != nil {
		return control.AppliedCertificate{}, err
	}
	if v.objects[control.Keys][keyOf(o.name)] != nil {
		if _, _, _, err := s.put(control.Keys, c, nil); err != nil {
			return control.AppliedCertificate{}, err
		}
	}
	return control.AppliedCertificate{
		AppliedObject: v.applied(control.Certificates, o, changed), CER: changed.cer, SecretValue: secret.value,
	}, nil
}
