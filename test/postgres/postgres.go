// Package postgres runs a real PostgreSQL, for stores that make its users.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-dev/postern/test/ports"
	"github.com/postern-dev/postern/test/process"
)

const (
	// nobody is who runs it: it refuses to be run by root.
	nobody = 65534
	// superuser may do everything, without a password.
	superuser    = "postgres"
	readyTimeout = 30 * time.Second
)

// ErrMissing is in the error of Start where it is not installed.
var ErrMissing = errors.New("no PostgreSQL in /usr/lib/postgresql/*/bin: apt-get install -y --no-install-recommends postgresql")

// Server is a running server. Only root can start one.
type Server struct {
	bin     string
	dir     string
	port    int
	process *process.Process
}

// Start makes an empty database below dir and serves it, which takes two seconds.
func Start(ctx context.Context, dir string) (_ *Server, err error) {
	bin, err := find()
	if err != nil {
		return nil, err
	}
	free, err := ports.Free(ctx, 1)
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, dir: filepath.Join(dir, "postgres"), port: free[0]}
	if err := errors.Join(os.MkdirAll(s.dir, 0o700), os.Chown(s.dir, nobody, nobody)); err != nil {
		return nil, fmt.Errorf("make the database's directory: %w", err)
	}
	made, err := s.run("initdb", "--username="+superuser, "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync", "-D", s.data())
	if err != nil {
		return nil, err
	}
	if err := made.Err(); err != nil {
		return nil, fmt.Errorf("initdb: %w: see %s", err, s.logFile())
	}
	s.process, err = s.run("postgres", "-D", s.data(), "-p", strconv.Itoa(s.port), "-k", s.dir,
		"-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=20")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err = s.process.WaitFor(ctx, func(ctx context.Context) error {
		_, err := s.Query(ctx, "SELECT 1")
		return err
	})
	if err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// Installed reports whether there is one to run.
func Installed() bool {
	_, err := find()
	return err == nil
}

// find returns where the newest version's programs are. Debian keeps them off
// PATH.
func find() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", ErrMissing
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1]), nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) logFile() string { return filepath.Join(filepath.Dir(s.dir), "postgres.log") }

func (s *Server) run(program string, args ...string) (*process.Process, error) {
	return process.Start(process.Config{
		Name: program, Path: filepath.Join(s.bin, program), Args: args, Dir: s.dir, Env: []string{"LC_ALL=C"},
		UID: nobody, GID: nobody, LogFile: s.logFile(),
	})
}

// Stop ends it at once.
func (s *Server) Stop() { s.process.Kill() }

// URL is where a user with a password connects to.
func (s *Server) URL(user, password string) string {
	u := url.URL{
		Scheme: "postgresql", User: url.UserPassword(user, password),
		Host: "127.0.0.1:" + strconv.Itoa(s.port), Path: "/postgres", RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Query runs SQL as the superuser and returns the rows, a line for each.
func (s *Server) Query(ctx context.Context, sql string) (string, error) {
	return s.psql(ctx, "host="+s.dir+" port="+strconv.Itoa(s.port)+" user="+superuser+" dbname=postgres", sql)
}

// Login reports whether a user may connect with a password.
func (s *Server) Login(ctx context.Context, user, password string) error {
	_, err := s.psql(ctx, s.URL(user, password), "SELECT 1")
	return err
}

func (s *Server) psql(ctx context.Context, database, sql string) (string, error) {
	command := exec.CommandContext(ctx, filepath.Join(s.bin, "psql"), "--no-psqlrc", "--tuples-only", "--no-align", "--dbname="+database, "--command="+sql)
	out, err := command.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, text)
	}
	return text, nil
}
