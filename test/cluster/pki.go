package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// validity is how long certificates are valid: longer than any cluster lives.
const validity = 365 * 24 * time.Hour

// authority signs the cluster's certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

// identity is who a certificate is for.
type identity struct {
	name, group string
	// hosts that it may serve as; none for a client.
	hosts []string
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of the certificate authority: %w", err)
	}
	template, err := certificate(identity{name: "postern-test-cluster"})
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid, template.ExtKeyUsage = true, true, nil
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the certificate of the authority: %w", err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of the authority: %w", err)
	}
	return &authority{certificate: parsed, key: key, pem: encode("CERTIFICATE", der)}, nil
}

// issue returns a certificate for who, and its key, both in PEM.
func (a *authority) issue(who identity) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make the key of %s: %w", who.name, err)
	}
	template, err := certificate(who)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the certificate of %s: %w", who.name, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the key of %s: %w", who.name, err)
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", keyDER), nil
}

func certificate(who identity) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: who.name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validity),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if who.group != "" {
		template.Subject.Organization = []string{who.group}
	}
	for _, host := range who.hosts {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return template, nil
}

// servers are the certificates that are files, by the name of the file.
func servers(nodeName string) map[string]identity {
	return map[string]identity{
		"apiserver": {name: "kube-apiserver", hosts: []string{
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + domain,
			"localhost", "127.0.0.1", apiAddress, nodeAddress,
		}},
		"apiserver-kubelet-client": {name: "kube-apiserver-kubelet-client", group: "system:masters"},
		"kubelet":                  {name: "system:node:" + nodeName, group: "system:nodes", hosts: []string{nodeName, nodeAddress}},
	}
}

// clients are those with a kubeconfig, by the name of the file.
func clients(nodeName string) map[string]identity {
	return map[string]identity{
		"admin":                   {name: "admin", group: "system:masters"},
		"kubelet":                 {name: "system:node:" + nodeName, group: "system:nodes"},
		"kube-controller-manager": {name: "system:kube-controller-manager"},
		"kube-scheduler":          {name: "system:kube-scheduler"},
		"kube-proxy":              {name: "system:kube-proxy"},
	}
}

// writePKI writes the certificates, the kubeconfigs and the key that signs the
// service accounts' tokens.
func writePKI(l layout, nodeName string) error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	files := map[string][]byte{filepath.Join(l.pki(), "ca.crt"): ca.pem}
	for name, who := range servers(nodeName) {
		cert, key, err := ca.issue(who)
		if err != nil {
			return err
		}
		files[filepath.Join(l.pki(), name+".crt")], files[filepath.Join(l.pki(), name+".key")] = cert, key
	}
	for name, who := range clients(nodeName) {
		if files[l.kubeconfig(name)], err = ca.kubeconfig(who); err != nil {
			return err
		}
	}
	// RSA, because that is what every cloud's token exchange takes.
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("make the key for service account tokens: %w", err)
	}
	files[filepath.Join(l.pki(), "sa.key")] = encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	for name, contents := range files {
		if err := os.WriteFile(name, contents, 0o600); err != nil {
			return fmt.Errorf("write a key or certificate: %w", err)
		}
	}
	return nil
}

// kubeconfig returns a kubeconfig with which who is known to the API server.
func (a *authority) kubeconfig(who identity) ([]byte, error) {
	cert, key, err := a.issue(who)
	if err != nil {
		return nil, err
	}
	const name = "postern"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: "https://" + apiEndpoint, CertificateAuthorityData: a.pem}
	config.AuthInfos[who.name] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: who.name}
	config.CurrentContext = name
	contents, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("write the kubeconfig of %s: %w", who.name, err)
	}
	return contents, nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
