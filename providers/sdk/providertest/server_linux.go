package providertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// startTimeout is for a machine that has much else to do.
const startTimeout = time.Minute

// Server is a test double of a store that runs as a process of its own.
type Server struct {
	command *exec.Cmd
	client  *http.Client
}

// StartServer starts a program and waits until it has written its addresses, as
// JSON, to the file that its flag --ready-file names; they are decoded into
// addresses, a pointer. The program ends with the test's process.
func StartServer(binary string, args []string, addresses any) (*Server, error) {
	dir, err := os.MkdirTemp("", filepath.Base(binary)+"-")
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left is a file of addresses
	ready := filepath.Join(dir, "ready.json")
	command := exec.Command(binary, append(args, "--ready-file", ready)...) //nolint:gosec,noctx // a test says what it starts; it ends with the test's process
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when a test times out
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	// A proxy of the environment is for what is tested, not for the control of it.
	s := &Server{command: command, client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{}}}
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); {
		if data, err := os.ReadFile(ready); err == nil && json.Unmarshal(data, addresses) == nil {
			return s, nil
		}
		<-time.After(20 * time.Millisecond) // it cannot be waited for otherwise
	}
	s.Stop()
	return nil, fmt.Errorf("%s does not get ready", binary)
}

// Stop ends it.
func (s *Server) Stop() {
	_ = s.command.Process.Kill()
	_ = s.command.Wait()
	s.client.CloseIdleConnections()
}

// Call sends in, as JSON, to a URL of its control API, and decodes the answer into
// out. Both may be nil.
func (s *Server) Call(method, url string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("%s %s: %w", method, url, err)
		}
	}
	req, err := http.NewRequestWithContext(context.Background(), method, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, url, err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, url, err)
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, data)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}
