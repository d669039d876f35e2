package postgres_test

import (
	"os"
	"testing"

	"github.com/postern-dev/postern/test/postgres"
)

func TestServer(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("it is started as another user, which needs root")
	}
	dir, err := os.MkdirTemp("", "postern-pg-") // t.TempDir is nobody's to enter
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o755))
	s, err := postgres.Start(t.Context(), dir)
	must(t, err)
	t.Cleanup(s.Stop)
	_, err = s.Query(t.Context(), `CREATE ROLE bob LOGIN PASSWORD 'p4ssw0rd'`)
	must(t, err)
	must(t, s.Login(t.Context(), "bob", "p4ssw0rd"))
	if err := s.Login(t.Context(), "bob", "another"); err == nil {
		t.Error("a wrong password is accepted")
	}
	names, err := s.Query(t.Context(), `SELECT rolname FROM pg_roles WHERE rolname = 'bob'`)
	must(t, err)
	if names != "bob" {
		t.Errorf("roles %q", names)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
