package prometheus

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"

	"sigs.k8s.io/yaml"
)

// RuleFile is a file of rules.
type RuleFile struct {
	Groups []RuleGroup `json:"groups"`
}

// RuleGroup is rules that are evaluated together.
type RuleGroup struct {
	Name  string `json:"name"`
	Rules []Rule `json:"rules"`
}

// Rule is an alert.
type Rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// ReadRules reads a file of rules, which may have nothing but alerts.
func ReadRules(path string) (RuleFile, error) {
	contents, err := os.ReadFile(path)
	if err != nil {
		return RuleFile{}, fmt.Errorf("read rules: %w", err)
	}
	var file RuleFile
	if err := yaml.UnmarshalStrict(contents, &file); err != nil {
		return RuleFile{}, fmt.Errorf("read rules of %s: %w", path, err)
	}
	return file, nil
}

// Write writes the file.
func (f RuleFile) Write(path string) error {
	contents, err := yaml.Marshal(f)
	if err != nil {
		return fmt.Errorf("write rules: %w", err)
	}
	if err := os.WriteFile(path, contents, 0o600); err != nil {
		return fmt.Errorf("write rules: %w", err)
	}
	return nil
}

// CheckRules has promtool say what is wrong with files of rules.
func CheckRules(ctx context.Context, files ...string) error {
	return promtool(ctx, append([]string{"check", "rules", "--lint-fatal"}, files...))
}

// TestRules has promtool run files of tests of rules.
func TestRules(ctx context.Context, files ...string) error {
	return promtool(ctx, append([]string{"test", "rules"}, files...))
}

func promtool(ctx context.Context, args []string) error {
	program, err := find("promtool")
	if err != nil {
		return err
	}
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("promtool %s %s: %w\n%s", args[0], args[1], err, &output)
	}
	return nil
}
