package pods_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/azure/control"
	azurecluster "github.com/postern-dev/postern/test/azure/incluster"
	"github.com/postern-dev/postern/test/cluster"
)

// azCommand stands in for Azure's command line tool: it tells what scripts ask for,
// and notes how it was called.
const azCommand = `#!/bin/sh
echo "$*" >>calls
case "$*" in
"aks show "*) echo ` + cluster.Issuer + ` ;;
"identity show "*"--query clientId "*) echo ${CLIENT_ID} ;;
"identity show "*"--query principalId "*) echo ${PRINCIPAL_ID} ;;
"account show "*) echo ` + azureTenantID + ` ;;
"keyvault show "*) echo /subscriptions/s/resourceGroups/prod/providers/Microsoft.KeyVault/vaults/${VAULT} ;;
esac
`

// What docs/azure.md tells readers to do works as it is there: commands, federated
// credential, roles, class and pod. The roles are enough for refreshes, too.
func testAzureDocs(t *testing.T, double *azurecluster.Server) {
	content, err := os.ReadFile(filepath.Join(shared.root, "docs/azure.md"))
	must(t, err)
	document := section(string(content), "Workload identity")
	a := newAzureTenant(t, double)
	calls := a.follow(blocks(document, "sh"))
	a.trustAsToldBy(calls)
	a.grantAsToldBy(calls)
	certificate := a.issue()
	a.put("db-password", "hunter2")
	apply := shared.cluster.Command(t.Context(), "kubectl", "apply", "-f", "-")
	apply.Stdin = strings.NewReader(strings.NewReplacer(
		"namespace: shop", "namespace: "+a.namespace, "keyvaultName: kv-shop", "keyvaultName: "+a.vault.Name,
		"image: example.com/shop/cart", "image: "+busybox+"\n      command: [sleep, '3600']",
	).Replace(blocks(document, "yaml")[0]))
	if _, err := output(apply); err != nil {
		t.Fatal(err)
	}
	got, err := files(a.ready("cart"), "secrets")
	must(t, err)
	if got["db-password"] != "hunter2" || !strings.Contains(got["web.pem"], certificate.ChainPEM) || len(got) != 2 {
		t.Errorf("the pod has %d files, db-password %q", len(got), got["db-password"])
	}
	a.wantReads()
}

// follow runs what readers are told to type, and returns how it called Azure's
// command line tool.
func (a *azureTenant) follow(scripts []string) string {
	a.t.Helper()
	dir := a.t.TempDir()
	az := strings.NewReplacer(
		"${CLIENT_ID}", a.application.ClientID, "${PRINCIPAL_ID}", "principal", "${VAULT}", a.vault.Name,
	).Replace(azCommand)
	must(a.t, os.WriteFile(filepath.Join(dir, "az"), []byte(az), 0o755))
	script := strings.NewReplacer("NAMESPACE=shop", "NAMESPACE="+a.namespace, "VAULT=kv-shop", "VAULT="+a.vault.Name).
		Replace(strings.Join(scripts, "\n"))
	typed(a.t, dir, script)
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	must(a.t, err)
	return string(calls)
}

// trustAsToldBy registers the federated credential that readers made.
func (a *azureTenant) trustAsToldBy(calls string) {
	a.t.Helper()
	match := regexp.MustCompile(`identity federated-credential create .* --issuer (\S+) --subject (\S+) --audiences (\S+)`).FindStringSubmatch(calls)
	if match == nil {
		a.t.Fatalf("no federated credential was made:\n%s", calls)
	}
	a.application.FederatedCredentials = []control.FederatedCredential{{Issuer: match[1], Subject: match[2], Audience: match[3]}}
	_, err := a.double.Apply(a.t.Context(), control.Document{Applications: []control.Application{a.application}})
	must(a.t, err)
}

// grantAsToldBy gives the application the roles that readers assigned.
func (a *azureTenant) grantAsToldBy(calls string) {
	a.t.Helper()
	roles := regexp.MustCompile(`role assignment create --role Key Vault Secrets User --scope \S+/vaults/` + a.vault.Name +
		`/secrets/(\S+) --assignee-object-id principal`)
	a.vault.Grants = nil
	for _, match := range roles.FindAllStringSubmatch(calls, -1) {
		a.vault.Grants = append(a.vault.Grants, control.Grant{
			ClientID: a.application.ClientID, Operations: []string{"secrets/get"}, Objects: []string{match[1]},
		})
	}
	_, err := a.double.Apply(a.t.Context(), control.Document{Vaults: []control.Vault{a.vault}})
	must(a.t, err)
}

// wantReads waits for a refresh, and wants nothing to have been refused.
func (a *azureTenant) wantReads() {
	a.t.Helper()
	eventually(a.t, time.Minute, "a refresh", func(context.Context) error {
		reads := 0
		for _, request := range a.requests(a.application.ClientID) {
			if request.Code != "" && request.Code != control.ChallengeNotAnswered {
				a.t.Errorf("the documented roles are not enough: %+v", request)
			}
			if request.Service == control.Secrets && request.Object == "db-password" && request.Code == "" {
				reads++
			}
		}
		if reads < 2 {
			return errors.New("the secret was read once")
		}
		return nil
	})
}
