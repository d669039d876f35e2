// Package file is a provider that serves files below a directory of its own.
//
// It is the reference for other providers, and what to try things out with:
// it needs no store, no login and no network. A pod gets files from the
// directory <root>/<namespace>/ only, so that one namespace cannot read
// another's, unless the operator turns that off.
//
// All access goes through [os.Root]: neither ".." nor a symbolic link leads
// out of the pod's directory.
package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"time"

	"github.com/postern-dev/postern/providers/sdk"
)

// freshFor is how long an answer may be served again. Files cost nothing to
// read, so it is just enough to make one of many fetches at once.
const freshFor = time.Second

// Config is what the operator decides.
type Config struct {
	// Root is the directory that holds the files. Required.
	Root string
	// PerNamespace serves a pod from <Root>/<namespace>/, and not from all of
	// Root.
	PerNamespace bool
	// MaxFileBytes is how large one file may be.
	MaxFileBytes int
	// MaxFiles is how many files a directory that is asked for may hold.
	MaxFiles int
}

// Provider serves files below a directory. It has no state: each Fetch opens
// the directory anew, so it may be replaced at any time.
type Provider struct {
	cfg Config
}

var (
	_ sdk.Provider      = (*Provider)(nil)
	_ sdk.HealthChecker = (*Provider)(nil)
)

// New returns a Provider.
func New(cfg Config) (*Provider, error) {
	switch {
	case cfg.Root == "":
		return nil, sdk.UsageErrorf("--root is required")
	case cfg.MaxFileBytes <= 0:
		return nil, sdk.UsageErrorf("--max-file-bytes must be more than 0, not %d", cfg.MaxFileBytes)
	case cfg.MaxFiles <= 0:
		return nil, sdk.UsageErrorf("--max-files must be more than 0, not %d", cfg.MaxFiles)
	}
	return &Provider{cfg: cfg}, nil
}

// Definition describes the provider to the sdk.
func Definition() sdk.Definition {
	var cfg Config
	return sdk.Definition{
		Name: "file",
		Parameters: []sdk.Parameter{{
			Name:        objectsParameter,
			Description: "YAML list of the files and directories to serve.",
			Required:    true,
		}},
		Flags: func(f *sdk.Flags) {
			f.String(&cfg.Root, "root", "", "directory that holds the files (required)")
			f.Bool(&cfg.PerNamespace, "per-namespace", true,
				"serve a pod from <root>/<namespace>/ only; false lets each pod of the cluster read all of the root")
			f.Int(&cfg.MaxFileBytes, "max-file-bytes", 1<<20, "largest file that is served, in bytes")
			f.Int(&cfg.MaxFiles, "max-files", 256, "most files that a directory which is asked for may hold")
		},
		New: func(context.Context, sdk.Environment) (sdk.Provider, error) { return New(cfg) },
	}
}

// Health tells whether the root can be opened.
func (p *Provider) Health(context.Context) error {
	root, err := os.OpenRoot(p.cfg.Root)
	if err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	return root.Close()
}

// Fetch reads all files that the parameters name.
func (p *Provider) Fetch(ctx context.Context, req *sdk.Request) (_ *sdk.Response, err error) {
	objects, err := parseObjects(req.Parameters)
	if err != nil {
		return nil, err
	}
	root, err := p.open(req.Pod.Namespace)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()

	// What one namespace gets is the same for all its pods.
	resp := &sdk.Response{Sharing: sdk.SharingNamespace, FreshFor: freshFor}
	reader := &reader{root: root, maxBytes: p.cfg.MaxFileBytes, maxFiles: p.cfg.MaxFiles}
	for _, object := range objects {
		files, err := reader.read(ctx, object)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			mode := object.FilePermission.Or(req.DefaultFileMode)
			resp.Files = append(resp.Files, sdk.File{Path: f.path, Mode: mode, Contents: f.contents})
			resp.Objects = append(resp.Objects, sdk.ObjectVersion{ID: f.path, Version: f.version(object, mode)})
		}
	}
	return resp, nil
}

// namespaceName is what Kubernetes lets be a namespace. Nothing else may name
// a directory: "." or "a/b" would be another one's.
var namespaceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// open opens the directory that pods of a namespace are served from.
func (p *Provider) open(namespace string) (*os.Root, error) {
	root, err := os.OpenRoot(p.cfg.Root)
	if err != nil {
		return nil, sdk.StoreUnavailable("the provider's root directory cannot be opened: "+
			"check its --root flag and the volume there: %v", err).WithCause(err)
	}
	if !p.cfg.PerNamespace {
		return root, nil
	}
	defer func() { _ = root.Close() }() // opened for reading only
	if !namespaceName.MatchString(namespace) {
		return nil, sdk.AccessDenied("", "%q is no name of a namespace", namespace)
	}
	sub, err := root.OpenRoot(namespace)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, sdk.NotFound("", "namespace %q has no directory below the provider's root: make one and put "+
			"the namespace's files there", namespace).WithCause(err)
	case err != nil:
		return nil, sdk.AccessDenied("", "the directory of namespace %q cannot be opened: let user id %d read it, "+
			"and let it be no symbolic link out of the root: %v", namespace, os.Getuid(), err).WithCause(err)
	}
	return sub, nil
}
