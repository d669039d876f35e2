package chaos

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/stack"
	"github.com/postern-dev/postern/test/tenant"
)

// How large the world is.
const (
	namespaces       = 2
	accountsOfEach   = 3
	seatsOfEachClass = 5 // beside which each class of a secret has a thief and a borrower
	certificateTTL   = "10m"
	rotationInterval = time.Second
	certificateMount = "pki"
	keyType          = "ec" // RSA keys would take all of the machine
)

// world is who is there, and what each may read.
type world struct {
	servers *stack.Stack
	// canary begins every secret, and is in nothing else.
	canary string
	// files is the directory that the file provider serves.
	files      string
	identities []*identity
	classes    []*class
	serials    serials
}

// newWorld makes the service accounts, their secrets and their classes.
func newWorld(ctx context.Context, servers *stack.Stack, dir string) (*world, error) {
	w := &world{servers: servers, canary: "canary-" + rand.Text(), files: filepath.Join(dir, "files")}
	if err := w.enableCertificates(ctx); err != nil {
		return nil, err
	}
	for n := range namespaces {
		namespace := fmt.Sprintf("chaos-%d", n+1)
		if err := w.writeFile(namespace); err != nil {
			return nil, err
		}
		for a := range accountsOfEach {
			one, err := w.newIdentity(ctx, namespace, fmt.Sprintf("account-%d", a+1))
			if err != nil {
				return nil, err
			}
			w.identities = append(w.identities, one)
		}
	}
	return w, nil
}

// enableCertificates mounts an authority that issues certificates with leases.
func (w *world) enableCertificates(ctx context.Context) error {
	bao := w.servers.Bao
	if err := bao.Write(ctx, "sys/mounts/"+certificateMount, map[string]any{"type": "pki"}); err != nil {
		return err
	}
	return bao.Write(ctx, certificateMount+"/root/generate/internal", map[string]any{
		"common_name": "chaos", "key_type": keyType,
	})
}

// writeFile writes what the file provider serves to a namespace.
func (w *world) writeFile(namespace string) error {
	path := filepath.Join(w.files, namespace, "token")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the file provider's directory: %w", err)
	}
	if err := os.WriteFile(path, []byte(w.fileToken(namespace)), 0o644); err != nil {
		return fmt.Errorf("write what the file provider serves: %w", err)
	}
	return nil
}

func (w *world) fileToken(namespace string) string { return w.canary + "/" + namespace + "/file" }

// newIdentity makes a service account with a secret, a role that may have
// certificates issued, and its classes.
func (w *world) newIdentity(ctx context.Context, namespace, account string) (*identity, error) {
	role := namespace + "-" + account
	made, err := tenant.New(ctx, w.servers, namespace, account,
		fmt.Sprintf(`path "%s/issue/%s" { capabilities = ["update"] }`, certificateMount, role),
		`path "sys/leases/revoke" { capabilities = ["update"] }`)
	if err != nil {
		return nil, err
	}
	one := &identity{Tenant: made, canary: w.canary}
	if err := one.rotate(ctx); err != nil {
		return nil, err
	}
	if err := w.servers.Bao.Write(ctx, certificateMount+"/roles/"+role, map[string]any{
		"allow_any_name": true, "generate_lease": true, "key_type": keyType, "ttl": certificateTTL,
	}); err != nil {
		return nil, err
	}
	return one, w.addClasses(ctx, one)
}

// addClasses writes the classes of a service account.
func (w *world) addClasses(ctx context.Context, one *identity) error {
	issue := fmt.Sprintf("secretPath: %s/issue/%s, method: PUT, secretArgs: {common_name: %s}", certificateMount, one.Role(), one.Role())
	certificate := strings.Join([]string{
		"- {objectName: tls.crt, " + issue + ", secretKey: certificate}",
		"- {objectName: tls.key, " + issue + ", secretKey: private_key, filePermission: 0400}",
	}, "\n")
	name := one.ServiceAccount
	w.classes = append(w.classes,
		&class{name: name + "-secret", owner: one, check: one.checkSecret},
		&class{name: name + "-certificate", owner: one, check: w.serials.checkCertificate, single: true},
		&class{name: name + "-file", owner: one, check: w.checkFile, open: true},
	)
	if err := one.VaultClass(ctx, name+"-secret", one.Object("username", "app", "username")+
		one.Object("nested/password", "app", "password", "filePermission: 0400"), nil); err != nil {
		return err
	}
	if err := one.VaultClass(ctx, name+"-certificate", certificate, nil); err != nil {
		return err
	}
	return one.Class(ctx, name+"-file", "file", map[string]string{"objects": "- objectName: token"})
}

// seats are the places at which pods come and go.
func (w *world) seats() []*seat {
	var seats []*seat
	for i, c := range w.classes {
		for n := range seatsOfEachClass {
			seats = append(seats, &seat{name: fmt.Sprintf("%s-%d", c.name, n), class: c, of: c.owner})
		}
		if c.open || c.single {
			continue
		}
		// Another service account, of the same namespace: classes are its own.
		thief := w.neighbour(c.owner)
		seats = append(seats,
			&seat{name: fmt.Sprintf("thief-%d", i), class: c, of: thief, refused: true},
			&seat{name: fmt.Sprintf("borrower-%d", i), class: c, of: c.owner, refused: true, borrowed: true},
		)
	}
	return seats
}

// neighbour is another service account of the namespace.
func (w *world) neighbour(of *identity) *identity {
	for i, one := range w.identities {
		if one == of {
			base := i - i%accountsOfEach
			return w.identities[base+(i+1-base)%accountsOfEach]
		}
	}
	return nil
}

// rotate writes the secrets anew, one after the other, until the end. What the
// store does not take, because it is frozen, is tried with the next.
func (w *world) rotate(ctx context.Context, end time.Time) {
	ticker := time.NewTicker(rotationInterval)
	defer ticker.Stop()
	for i := 0; time.Now().Before(end); i++ {
		select {
		case <-ticker.C:
			_ = w.identities[i%len(w.identities)].rotate(ctx)
		case <-ctx.Done():
			return
		}
	}
}
