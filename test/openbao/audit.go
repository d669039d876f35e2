package openbao

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Call is one that the server answered, as its audit log has it.
type Call struct {
	// Operation is read, update and the like.
	Operation string
	// Path is the API's, without /v1/.
	Path string
	// Caller is the display name of the token that was used, or of the one that
	// a login made: for a login of the kubernetes method
	// kubernetes-<namespace>-<service account>.
	Caller string
}

// Calls returns all calls since the start, but those that failed.
func (s *Server) Calls() ([]Call, error) { return ReadCalls(s.auditFile()) }

// ReadCalls returns the calls in an audit log, but those that failed.
func ReadCalls(log string) (calls []Call, err error) {
	file, err := os.Open(log)
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var entry struct {
			Type    string
			Error   string
			Request struct{ Operation, Path string }
			Auth    struct {
				DisplayName string `json:"display_name"`
			}
		}
		if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
			break // the last line is being written
		}
		if entry.Type == "response" && entry.Error == "" {
			calls = append(calls, Call{Operation: entry.Request.Operation, Path: entry.Request.Path, Caller: entry.Auth.DisplayName})
		}
	}
	return calls, lines.Err()
}

func (s *Server) auditFile() string { return filepath.Join(s.cfg.Dir, "audit.log") }

func (s *Server) configFile() string { return filepath.Join(s.cfg.Dir, "bao.hcl") }

// writeConfig has the server write an audit log, anew.
func (s *Server) writeConfig() error {
	config := fmt.Sprintf("audit \"file\" \"calls\" {\n  options {\n    file_path = %q\n  }\n}\n", s.auditFile())
	if err := os.Remove(s.auditFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the old audit log: %w", err)
	}
	if err := os.WriteFile(s.configFile(), []byte(config), 0o600); err != nil {
		return fmt.Errorf("write the server's configuration: %w", err)
	}
	return nil
}
