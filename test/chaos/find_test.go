package chaos

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	randv2 "math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-dev/postern/test/build"
	"github.com/postern-dev/postern/test/kubelet"
	"github.com/postern-dev/postern/test/process"
	"github.com/postern-dev/postern/test/tenant"
)

// What a run looks for must be found where it is, or a run that finds nothing
// proves nothing.

func TestCheckSecret(t *testing.T) {
	t.Parallel()
	web := &identity{Tenant: tenant.Of(nil, "shop", "web"), canary: "canary", newest: 3}
	other := &identity{Tenant: tenant.Of(nil, "shop", "web2"), canary: "canary", newest: 3}
	good := func() map[string]kubelet.File {
		return map[string]kubelet.File{
			"username":        {Mode: 0o644, Contents: web.value("username", 2)},
			"nested/password": {Mode: 0o400, Contents: web.value("password", 2)},
		}
	}
	for name, test := range map[string]struct {
		change func(map[string]kubelet.File)
		want   string
	}{
		"as it is to be":  {func(map[string]kubelet.File) {}, ""},
		"no files":        {func(f map[string]kubelet.File) { clear(f) }, `the files are []`},
		"one is missing":  {func(f map[string]kubelet.File) { delete(f, "username") }, `the files are ["nested/password"]`},
		"one too many":    {func(f map[string]kubelet.File) { f["x"] = kubelet.File{} }, `the files are`},
		"another's":       {func(f map[string]kubelet.File) { set(f, "username", other.value("username", 2)) }, "not of shop-web"},
		"another key":     {func(f map[string]kubelet.File) { set(f, "username", web.value("password", 2)) }, "not of shop-web"},
		"empty":           {func(f map[string]kubelet.File) { set(f, "nested/password", "") }, "not of shop-web"},
		"of two versions": {func(f map[string]kubelet.File) { set(f, "username", web.value("username", 1)) }, "of version 1 and the password of version 2"},
		"never written": {func(f map[string]kubelet.File) {
			set(f, "username", web.value("username", 4))
			set(f, "nested/password", web.value("password", 4))
		}, "the newest is 3"},
		"readable by others": {func(f map[string]kubelet.File) {
			file := f["nested/password"]
			file.Mode = 0o644
			f["nested/password"] = file
		}, "mode 0644, want 0400"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := good()
			test.change(files)
			wantError(t, web.checkSecret(kubelet.Volume{}, files), test.want)
		})
	}
}

func set(files map[string]kubelet.File, name, contents string) {
	file := files[name]
	file.Contents = contents
	files[name] = file
}

func TestCheckFile(t *testing.T) {
	t.Parallel()
	w := &world{canary: "canary"}
	files := map[string]kubelet.File{"token": {Mode: 0o644, Contents: w.fileToken("shop")}}
	wantError(t, w.checkFile(kubelet.Volume{Namespace: "shop"}, files), "")
	wantError(t, w.checkFile(kubelet.Volume{Namespace: "other"}, files), `want "canary/other/file"`)
}

func TestCheckCertificate(t *testing.T) {
	t.Parallel()
	var seen serials
	one, two := certificate(t, "shop-web", 1), certificate(t, "shop-web", 2)
	web := kubelet.Volume{Namespace: "shop", ServiceAccount: "web", UID: "uid-1"}
	wantError(t, seen.checkCertificate(web, one), "")
	wantError(t, seen.checkCertificate(web, one), "")
	wantError(t, seen.checkCertificate(web, two), "")
	web.UID = "uid-2"
	wantError(t, seen.checkCertificate(web, one), "is also that of pod uid-1")
	wantError(t, seen.checkCertificate(kubelet.Volume{Namespace: "shop", ServiceAccount: "db"}, certificate(t, "shop-web", 3)), `want "shop-db"`)
	mixed := certificate(t, "shop-web", 4)
	mixed["tls.key"] = two["tls.key"]
	wantError(t, seen.checkCertificate(web, mixed), "the key is not the certificate's")
}

// certificate makes the files of a volume with a certificate.
func certificate(t *testing.T, name string, serial int64) map[string]kubelet.File {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, data []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}))
	}
	return map[string]kubelet.File{
		"tls.crt": {Mode: 0o644, Contents: block("CERTIFICATE", signed)},
		"tls.key": {Mode: 0o400, Contents: block("EC PRIVATE KEY", encoded)},
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestFailure(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		code           codes.Code
		domain, reason string
		disturbed      bool
		clean, refuses bool
		want           string
	}{
		"store away":              {codes.Unavailable, "postern", "STORE_UNAVAILABLE", false, true, false, "STORE_UNAVAILABLE"},
		"driver killed":           {codes.Unavailable, "", "", true, true, false, "the driver was away (Unavailable)"},
		"no reason":               {codes.Unavailable, "", "", false, false, false, "no reason (Unavailable)"},
		"somebody else's reason":  {codes.Unavailable, "googleapis.com", "X", false, false, false, "no reason (Unavailable)"},
		"final for kubelet":       {codes.Internal, "postern", "MOUNT_FAILED", true, false, false, "MOUNT_FAILED"},
		"unknown while disturbed": {codes.Unknown, "", "", true, false, false, "the driver was away (Unknown)"},
		"refused login":           {codes.Unauthenticated, "postern", "LOGIN_FAILED", false, false, true, "LOGIN_FAILED"},
		"refused token":           {codes.Unauthenticated, "postern", "TOKEN_INVALID", false, false, true, "TOKEN_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := status.New(test.code, "text")
			if test.domain != "" {
				var err error
				if s, err = s.WithDetails(&errdetails.ErrorInfo{Domain: test.domain, Reason: test.reason}); err != nil {
					t.Fatal(err)
				}
			}
			f := failureOf(s.Err(), test.disturbed)
			if f.clean() != test.clean || f.refuses() != test.refuses || f.name() != test.want {
				t.Errorf("clean %t, refuses %t, %q; want %t, %t, %q", f.clean(), f.refuses(), f.name(), test.clean, test.refuses, test.want)
			}
		})
	}
}

func TestDisturbances(t *testing.T) {
	t.Parallel()
	var d disturbances
	before := d.watch()
	if before() {
		t.Error("disturbed though nothing happened")
	}
	end := d.begin()
	during := d.watch()
	end()
	after := d.watch()
	if !before() || !during() || after() {
		t.Errorf("before %t, during %t, after %t; want all but the last", before(), during(), after())
	}
}

func TestLevels(t *testing.T) {
	t.Parallel()
	const metrics = "# TYPE go_goroutines gauge\ngo_goroutines 31\nprocess_open_fds 1.2e+01\ngo_goroutines_x 7\n"
	got, err := parseLevel(metrics)
	if err != nil || got != (level{goroutines: 31, files: 12}) {
		t.Errorf("parseLevel() = %+v, %v", got, err)
	}
	if _, err := parseLevel("go_goroutines 31\n"); err == nil {
		t.Error("metrics without file descriptors are taken")
	}
	before := levels{"driver": {goroutines: 30, files: 10, memory: 20 * mebibyte}}
	for name, test := range map[string]struct {
		now  level
		want string
	}{
		"same":       {before["driver"], ""},
		"tolerated":  {level{30 + moreGoroutines, 10 + moreFiles, 20*mebibyte + moreMemory}, ""},
		"goroutines": {level{31 + moreGoroutines, 10, 0}, "has 39 goroutines and had 30"},
		"files":      {level{30, 11 + moreFiles, 0}, "has 17 file descriptors and had 10"},
		"memory":     {level{30, 10, 21*mebibyte + moreMemory}, "takes 37.0 MiB and took 20.0"},
	} {
		if got := strings.Join(levels{"driver": test.now}.over(before), ";"); got != test.want && got != "driver "+test.want {
			t.Errorf("%s: over %q, want %q", name, got, test.want)
		}
	}
	lowest := levels{"driver": {goroutines: 30, files: 10, memory: 20}}
	if lowest.lower(levels{"driver": {goroutines: 31, files: 10, memory: 10}}) || lowest["driver"].memory != 10 {
		t.Errorf("levels %v after memory alone fell", lowest)
	}
	if !lowest.lower(levels{"driver": {goroutines: 29, files: 11, memory: 20}}) || lowest["driver"] != (level{29, 10, 10}) {
		t.Errorf("levels %v after the goroutines fell", lowest)
	}
}

// A log is searched for what begins every secret, also where it is encoded.
func TestForbidden(t *testing.T) {
	t.Parallel()
	w := &world{canary: "canary-ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
	one := &identity{Tenant: tenant.Of(nil, "shop", "web"), canary: w.canary}
	for name, log := range map[string]string{
		"a secret":          "got " + one.value("password", 12),
		"a file's":          w.fileToken("shop"),
		"in base64":         base64.StdEncoding.EncodeToString([]byte(one.value("password", 12))),
		"in base64url":      base64.RawURLEncoding.EncodeToString([]byte(w.fileToken("shop"))),
		"a token":           base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","kid":"x"}`)) + ".e30.c2ln",
		"a private key":     certificate(t, "x", 1)["tls.key"].Contents,
		"a crash":           "panic: runtime error",
		"a crash of a call": `"msg":"handler panicked"`,
	} {
		found := false
		for _, text := range w.forbidden() {
			found = found || strings.Contains(log, text)
		}
		if !found {
			t.Errorf("%s is not found in a log", name)
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	r := newReport(Config{Seed: 7, Rate: 50})
	if r.Err() != nil {
		t.Errorf("a report without problems is %v", r.Err())
	}
	s := &seat{class: &class{name: "app"}, pod: kubelet.Volume{Namespace: "shop", Pod: "web", UID: "uid"}}
	r.published(s, 2*time.Second)
	s.mounted = true
	r.published(s, time.Second)
	r.failed(failure{code: codes.Unavailable, reason: "STORE_UNAVAILABLE"})
	r.hit("driver", killed)
	r.took = 10 * time.Second
	for _, want := range []string{
		"seed 7 for 10s", "2 that ended, 0.2 per second of 50", "1, republishes 1", "1 attempts failed, each cured by another (STORE_UNAVAILABLE 1)",
		"2s (pod shop/web, class app, volume uid)", "driver           1 hits (killed 1)", "problems         0",
	} {
		if !strings.Contains(r.String(), want) {
			t.Errorf("the summary does not say %q:\n%s", want, r)
		}
	}
	for range maxProblems + 2 {
		r.problem("left behind: %d", 3)
	}
	if err := r.Err(); err == nil || strings.Count(err.Error(), "left behind: 3") != maxProblems || !strings.Contains(err.Error(), "and 2 more") {
		t.Errorf("Err() = %v", err)
	}
	if want := "problems         22"; !strings.Contains(r.String(), want) {
		t.Errorf("the summary does not say %q", want)
	}
}

// A frozen process goes on after a while, and nothing else ends.
func TestFreeze(t *testing.T) {
	t.Parallel()
	p, err := process.Start(process.Config{
		Name: "sleep", Path: "/bin/sleep", Args: []string{"1000"}, LogFile: filepath.Join(t.TempDir(), "log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	m := &monkey{name: "sleep", store: p}
	ctx, thaw := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.freeze(ctx, time.Hour) }()
	awaitState(t, p, func(state string) bool { return strings.HasPrefix(state, "T") })
	thaw()
	if err := <-done; err != nil {
		t.Error(err)
	}
	awaitState(t, p, func(state string) bool { return !strings.HasPrefix(state, "T") })
	if err := p.Signal(unix.Signal(0)); err != nil {
		t.Errorf("the process ended: %v", err)
	}
	if err := (&monkey{}).hit(t.Context(), randv2.New(randv2.NewPCG(1, 1)), "tickled"); err == nil {
		t.Error("a way to be hit that nobody knows is no error")
	}
}

// awaitState waits until a process is in such a state.
func awaitState(t *testing.T, p *process.Process, is func(string) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.WaitFor(ctx, func(context.Context) error {
		status, err := p.Status()
		if err == nil && !is(status["State"]) {
			err = fmt.Errorf("its state is %q", status["State"])
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestPoolGivesEachSeatOnce(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		p := &pool{idle: []*seat{{name: "a"}, {name: "b"}, {name: "c"}, {name: "d"}}}
		random := randv2.New(randv2.NewPCG(seed, seed))
		taken := map[string]bool{}
		for range 4 {
			taken[p.take(random).name] = true
		}
		if len(taken) != 4 || p.take(random) != nil {
			t.Errorf("took %v, want each once", taken)
		}
		back := &seat{name: "e"}
		p.put(back)
		if p.take(random) != back {
			t.Error("a seat that was put back is not taken again")
		}
	}
}

func TestSeats(t *testing.T) {
	t.Parallel()
	w := &world{}
	for _, namespace := range []string{"one", "two"} {
		for _, account := range []string{"a", "b", "c"} {
			owner := &identity{Tenant: tenant.Of(nil, namespace, account)}
			w.identities = append(w.identities, owner)
			w.classes = append(w.classes, &class{name: account + "-secret", owner: owner}, &class{name: account + "-file", owner: owner, open: true})
		}
	}
	thieves, borrowers := 0, 0
	for _, s := range w.seats() {
		switch {
		case s.borrowed:
			borrowers++
			if !s.refused || s.of != s.class.owner {
				t.Errorf("borrower %s is not of the class's own service account", s.name)
			}
		case s.refused:
			thieves++
			if s.of == s.class.owner || s.of.Namespace != s.class.owner.Namespace || s.class.open {
				t.Errorf("thief %s of %s/%s for class %s of %s is none", s.name, s.of.Namespace, s.of.ServiceAccount, s.class.name, s.class.owner.ServiceAccount)
			}
		case s.of != s.class.owner:
			t.Errorf("seat %s is not of the class's owner", s.name)
		}
	}
	if thieves != 6 || borrowers != 6 {
		t.Errorf("%d thieves and %d borrowers, want 6 of each", thieves, borrowers)
	}
}

func TestRunSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]Config{
		"Builder and Progress are required": {Progress: t.Output(), Duration: time.Minute, Rate: 1},
		"is too short":                      {Builder: &build.Builder{}, Progress: t.Output(), Duration: time.Second, Rate: 1},
		"has to be more than 0":             {Builder: &build.Builder{}, Progress: t.Output(), Duration: time.Minute},
	} {
		_, err := Run(t.Context(), cfg)
		wantError(t, err, want)
	}
}
