package identity

import (
	"context"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/postern-dev/postern/providers/sdk"
)

// assertionCredential logs in with a pod's token. Instance discovery would ask the
// public cloud whether an authority is one of Microsoft's: clouds are of a table or
// of the operator's files, and are trusted.
func assertionCredential(k key, opts azcore.ClientOptions, token sdk.SecretString) (azcore.TokenCredential, error) {
	return azidentity.NewClientAssertionCredential(k.tenant, k.client,
		func(context.Context) (string, error) { return token.Reveal(), nil },
		&azidentity.ClientAssertionCredentialOptions{ClientOptions: opts, DisableInstanceDiscovery: true})
}

// secretCredential logs in with a client secret.
func secretCredential(k key, opts azcore.ClientOptions, secret sdk.SecretString) (azcore.TokenCredential, error) {
	return azidentity.NewClientSecretCredential(k.tenant, k.client, secret.Reveal(),
		&azidentity.ClientSecretCredentialOptions{ClientOptions: opts, DisableInstanceDiscovery: true})
}
