package oidc_test

import (
	"slices"
	"testing"
	"time"

	"github.com/postern-dev/postern/test/aws/control"
	"github.com/postern-dev/postern/test/aws/oidc"
)

func TestIssuers(t *testing.T) {
	t.Parallel()
	v := oidc.New(time.Now)
	if got := v.PodIdentityIssuer(); got != "" {
		t.Errorf("with no issuer, the agent's is %q", got)
	}
	put := func(i control.Issuer) {
		t.Helper()
		if err := v.Put(i); err != nil {
			t.Fatal(err)
		}
	}
	put(control.Issuer{URL: "https://one"})
	put(control.Issuer{URL: "https://two", Audiences: []string{"x"}})
	if got := v.PodIdentityIssuer(); got != "https://one" {
		t.Errorf("the agent's issuer is %q, want the first", got)
	}
	put(control.Issuer{URL: "https://two", Audiences: []string{"y"}, PodIdentity: true})
	if got := v.PodIdentityIssuer(); got != "https://two" {
		t.Errorf("the agent's issuer is %q, want the one that says so", got)
	}
	for url, want := range map[string][]string{"https://one": {"sts.amazonaws.com"}, "https://two": {"y"}, "https://three": nil} {
		if got, ok := v.Audiences(url); !slices.Equal(got, want) || ok != (want != nil) {
			t.Errorf("Audiences(%s) = %q, %t, want %q", url, got, ok, want)
		}
	}
}
