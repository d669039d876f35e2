package policy

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/postern-dev/postern/gateway/internal/policy/rules"
	"github.com/postern-dev/postern/internal/daemon"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// CommandName and CommandSummary of Command, for the help of the gateway.
const (
	CommandName    = "policy check"
	CommandSummary = "check a file of policy rules, and what they would say of SecretProviderClasses"
)

const (
	// defaultFile is where the chart has the rules.
	defaultFile = "/etc/postern/policy/policy.yaml"
	// standardInput stands for it instead of a file.
	standardInput = "-"
	// maxClasses is the size of a file with classes.
	maxClasses = 64 << 20
)

// command is one call of Command.
type command struct {
	file, classes, serviceAccount string
	stdin                         io.Reader
	out                           bytes.Buffer
}

func (c *command) flags() *daemon.Flags {
	f := daemon.NewFlags("postern-gateway "+CommandName, "Checks the rules in FILE, the argument before all flags; "+
		standardInput+" is standard input, and "+defaultFile+" the default.")
	f.Group("SecretProviderClasses")
	f.String(&c.classes, "classes", "", "`file` with SecretProviderClasses to ask the rules about, as kubectl get -o yaml prints them; "+
		standardInput+" for standard input")
	f.String(&c.serviceAccount, "service-account", "default", "`name` of the service account that they are asked for")
	return f
}

// Command checks a file of rules, and prints their names or fails with all that
// is wrong. With --classes it prints what the rules say of each, and fails if one
// is refused.
func Command(ctx context.Context, env daemon.Env) error {
	return run(ctx, env, os.Stdin)
}

func run(ctx context.Context, env daemon.Env, stdin io.Reader) error {
	c := command{file: defaultFile, stdin: stdin}
	if len(env.Args) > 0 && (env.Args[0] == standardInput || !strings.HasPrefix(env.Args[0], "-")) {
		c.file, env.Args = env.Args[0], env.Args[1:]
	}
	if err := c.flags().Parse(env); err != nil {
		return err
	}
	if c.file == standardInput && c.classes == standardInput {
		return &daemon.UsageError{
			Err:     errors.New("--classes: standard input has the rules already"),
			Program: "postern-gateway " + CommandName,
		}
	}
	failed := c.check(ctx)
	if _, err := c.out.WriteTo(env.Stdout); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return failed
}

func (c *command) check(ctx context.Context) error {
	source, err := c.read(c.file, rules.MaxSource)
	if err != nil {
		return err
	}
	compiled, err := rules.Compile(source)
	if err != nil {
		var problems *rules.SourceError
		if errors.As(err, &problems) {
			return fmt.Errorf("the rules in %s are wrong:\n  %s", c.file, strings.Join(problems.Problems, "\n  "))
		}
		return err
	}
	fmt.Fprintf(&c.out, "%s: %d rules\n", c.file, len(compiled.List()))
	for _, rule := range compiled.List() {
		note := ""
		if rule.Audits {
			note = " (audits only)"
		}
		fmt.Fprintf(&c.out, "  %s%s\n", rule.Name, note)
	}
	if c.classes == "" {
		return nil
	}
	return c.checkClasses(ctx, compiled)
}

// read reads a file or standard input, and a byte more than it may have.
func (c *command) read(path string, limit int64) ([]byte, error) {
	in := c.stdin
	if path != standardInput {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("open what is to be checked: %w", err)
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	content, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return content, nil
}

// checkClasses prints what the rules say of each class.
func (c *command) checkClasses(ctx context.Context, compiled *rules.Set) error {
	content, err := c.read(c.classes, maxClasses)
	if err != nil {
		return err
	}
	classes, err := decodeClasses(content)
	if err != nil {
		return fmt.Errorf("read SecretProviderClasses of %s: %w", c.classes, err)
	}
	refused := 0
	for _, class := range classes {
		req := class.request(c.serviceAccount)
		fmt.Fprintf(&c.out, "%s/%s, provider %s: ", req.GetPod().GetNamespace(), req.GetSecretProviderClass(), req.GetProvider())
		verdict := "allowed"
		if err := compiled.Violations(ctx, req, func(v rules.Violation) bool {
			if !v.Audits {
				verdict = fmt.Sprintf("refused by rule %q: %s", v.Name, v.Explanation)
				refused++
				return false
			}
			verdict += fmt.Sprintf("; rule %q audits: %s", v.Name, v.Explanation)
			return true
		}); err != nil {
			return err
		}
		fmt.Fprintln(&c.out, verdict)
	}
	if refused > 0 {
		return fmt.Errorf("%d of %d SecretProviderClasses are refused", refused, len(classes))
	}
	return nil
}

// manifest is what is read of a SecretProviderClass, or of a list of them.
type manifest struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		Provider   string
		Parameters map[string]string
	}
	Items []manifest
}

// decodeClasses returns the classes of a file, and leaves out all else.
func decodeClasses(content []byte) ([]manifest, error) {
	if len(content) > maxClasses {
		return nil, fmt.Errorf("it has more than %d bytes", maxClasses)
	}
	var classes []manifest
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var m manifest
		err := decoder.Decode(&m)
		switch {
		case errors.Is(err, io.EOF) && len(classes) == 0:
			return nil, errors.New("there are none")
		case errors.Is(err, io.EOF):
			return classes, nil
		case err != nil:
			return nil, fmt.Errorf("parse YAML: %w", err)
		}
		for _, item := range append([]manifest{m}, m.Items...) {
			if item.Kind == "SecretProviderClass" {
				classes = append(classes, item)
			}
		}
	}
}

// request is the fetch of a pod that uses the class.
func (m *manifest) request(serviceAccount string) *gatewayv1.FetchRequest {
	return &gatewayv1.FetchRequest{
		Provider:            m.Spec.Provider,
		SecretProviderClass: m.Metadata.Name,
		Parameters:          m.Spec.Parameters,
		Pod: &secretv1.Pod{
			Namespace:      cmp.Or(m.Metadata.Namespace, "default"),
			ServiceAccount: &secretv1.ServiceAccount{Name: serviceAccount},
		},
	}
}
