package chaos

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/postern-dev/postern/test/kubelet"
)

// logAround is how much of a log is shown before what must not be there.
const logAround = 200

// checkMounts wants the node to be as before the first mount.
func (r *run) checkMounts() {
	mounts, err := kubelet.Mounts(r.node.Path())
	if err != nil || len(mounts) > 0 {
		r.report.problem("left behind: mounts %v (%v)", mounts, err)
	}
	pods, err := os.ReadDir(r.node.Path("kubelet/pods"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(pods) > 0 {
		r.report.problem("left behind: directories of pods %v (%v)", pods, err)
	}
}

// checkLogs wants no secret and no crash in what the daemons wrote, all that
// were killed included.
func (r *run) checkLogs() {
	for _, daemon := range r.node.Daemons() {
		log := daemon.Log()
		for what, text := range r.world.forbidden() {
			if at := strings.Index(log, text); at >= 0 {
				r.report.problem("the log of %s holds %s: …%s", daemon.Name(), what, log[max(0, at-logAround):at+len(text)])
			}
		}
		if !strings.Contains(log, "server listens") {
			r.report.problem("the log of %s does not even say that it started: what is searched is not its log", daemon.Name())
		}
	}
}

// forbidden are texts that no log may hold.
func (w *world) forbidden() map[string]string {
	encoded := base64.StdEncoding.EncodeToString([]byte(w.canary))
	return map[string]string{
		"a secret":               w.canary,
		"a secret in base64":     encoded[:len(encoded)/4*4-4], // what follows depends on what comes after it
		"a private key":          "PRIVATE KEY",
		"a token":                "eyJhbGciOi", // {"alg":
		"a panic":                "panic:",
		"a panic of a call":      "panicked",
		"a crash of the runtime": "fatal error:",
		"a race":                 "DATA RACE",
	}
}

// checkClosed wants the daemons to end by themselves and leave nothing.
func (r *run) checkClosed(err error) {
	if err != nil {
		r.report.problem("at the end: %v", err)
	}
}
