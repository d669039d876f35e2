// Package hostdirs keeps the directories on the host in which the gateway and
// the providers listen: each belongs to the one process that may listen there,
// and only those who call it get in.
package hostdirs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-dev/postern/internal/logkey"
)

const (
	// The gateway's own; the driver is root and needs no bits.
	gatewayDirMode = 0o750
	// The gateway lists it; providers only pass through.
	providersDirMode = 0o751
	// The provider makes sockets, the gateway lists and connects. By the setgid
	// bit a socket gets the gateway's group.
	providerDirMode = 0o750 | fs.ModeSetgid
	// Added to what a provider of the upstream protocol made as root, so that
	// a gateway without privileges can list and connect.
	legacyDirBits    = 0o050
	legacySocketBits = 0o060

	// The slow rescan repairs what somebody changed, and finds the sockets of
	// legacy providers; those come and go with their pods.
	rescanInterval = time.Second
)

// Config is what New needs.
type Config struct {
	// GatewayDir holds the gateway's socket.
	GatewayDir string
	// ProvidersDir holds a directory per provider.
	ProvidersDir string
	// LegacyDirs hold the sockets of providers made for the upstream driver.
	// They are used where they exist.
	LegacyDirs []string
	// GatewayUID is what the gateway runs as; its group has the same number.
	GatewayUID int
	// ProviderUIDs maps a provider's name to what it runs as.
	ProviderUIDs map[string]int
	Logger       *slog.Logger
}

// Dirs keeps the directories. It is not safe for concurrent use.
type Dirs struct {
	cfg Config
	// failed remembers what was logged, so that a lasting fault is one line.
	failed string
}

// New checks cfg and returns a Dirs. It does not touch the host.
func New(cfg Config) (*Dirs, error) {
	for _, dir := range append([]string{cfg.GatewayDir, cfg.ProvidersDir}, cfg.LegacyDirs...) {
		if !filepath.IsAbs(dir) {
			return nil, fmt.Errorf("host directory %q is not an absolute path", dir)
		}
	}
	for name, uid := range cfg.ProviderUIDs {
		if name == "" || filepath.Base(name) != name || name == ".." || name == "." {
			return nil, fmt.Errorf("provider name %q is not a file name", name)
		}
		if uid < 0 {
			return nil, fmt.Errorf("uid %d of provider %q is negative", uid, name)
		}
	}
	if cfg.Logger == nil {
		return nil, errors.New("host directories need a logger")
	}
	return &Dirs{cfg: cfg}, nil
}

// Create makes the directories and gives each its owner and mode.
func (d *Dirs) Create() error {
	gateway := d.cfg.GatewayUID
	if err := ensure(d.cfg.GatewayDir, gateway, gateway, gatewayDirMode); err != nil {
		return err
	}
	if err := ensure(d.cfg.ProvidersDir, os.Geteuid(), gateway, providersDirMode); err != nil {
		return err
	}
	for name, uid := range d.cfg.ProviderUIDs {
		if err := ensure(filepath.Join(d.cfg.ProvidersDir, name), uid, gateway, providerDirMode); err != nil {
			return err
		}
	}
	return nil
}

// Run keeps them so until ctx ends.
func (d *Dirs) Run(ctx context.Context) error {
	ticker := time.NewTicker(rescanInterval)
	defer ticker.Stop()
	for {
		d.report(ctx, errors.Join(d.Create(), d.openLegacy()))
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (d *Dirs) report(ctx context.Context, err error) {
	if err == nil {
		d.failed = ""
		return
	}
	if err.Error() != d.failed {
		d.failed = err.Error()
		d.cfg.Logger.WarnContext(ctx, "cannot keep the socket directories as they have to be", logkey.Error, err)
	}
}

// openLegacy lets the gateway's group connect to the sockets of providers made
// for the upstream driver, which calls them as root.
func (d *Dirs) openLegacy() error {
	if d.cfg.GatewayUID == 0 {
		return nil
	}
	var errs []error
	for _, dir := range d.cfg.LegacyDirs {
		sockets, err := filepath.Glob(filepath.Join(dir, "*.sock"))
		if err != nil || len(sockets) == 0 {
			continue
		}
		errs = append(errs, openTo(dir, d.cfg.GatewayUID, legacyDirBits))
		for _, socket := range sockets {
			errs = append(errs, openTo(socket, d.cfg.GatewayUID, legacySocketBits))
		}
	}
	return errors.Join(errs...)
}
