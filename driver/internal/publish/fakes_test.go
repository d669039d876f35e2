package publish_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/podstatus"
	"github.com/postern-dev/postern/driver/internal/publish"
	"github.com/postern-dev/postern/driver/internal/secretsync"
	"github.com/postern-dev/postern/driver/internal/spc"
	"github.com/postern-dev/postern/driver/internal/volume"
	"github.com/postern-dev/postern/internal/redact"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// memoryClasses holds SecretProviderClasses by namespace/name.
type memoryClasses struct {
	mu     sync.Mutex
	byName map[string]*apiv1.SecretProviderClass
}

func (m *memoryClasses) SecretProviderClass(_ context.Context, namespace, name string) (*apiv1.SecretProviderClass, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	class, ok := m.byName[namespace+"/"+name]
	if !ok {
		return nil, spc.ErrNotFound
	}
	return class.DeepCopy(), nil
}

// change changes the class "shop/database".
func (m *memoryClasses) change(change func(*apiv1.SecretProviderClass)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m.byName["shop/database"])
}

// set sets a parameter of the class "shop/database".
func (m *memoryClasses) set(parameter, value string) {
	m.change(func(class *apiv1.SecretProviderClass) { class.Spec.Parameters[parameter] = value })
}

// remove takes the class "shop/database" away, for put to bring it back.
func (m *memoryClasses) remove() *apiv1.SecretProviderClass {
	m.mu.Lock()
	defer m.mu.Unlock()
	class := m.byName["shop/database"]
	delete(m.byName, "shop/database")
	return class
}

func (m *memoryClasses) put(class *apiv1.SecretProviderClass) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byName["shop/database"] = class
}

// failingClasses cannot be asked.
type failingClasses struct{ err error }

func (f failingClasses) SecretProviderClass(context.Context, string, string) (*apiv1.SecretProviderClass, error) {
	return nil, f.err
}

// memoryCluster knows one service account, one node and whether the pod lives.
type memoryCluster struct {
	annotations, labels map[string]string
	podGone             bool
	err                 error
}

func (c *memoryCluster) ServiceAccountAnnotations(_ context.Context, _, _ string, keys []string) (map[string]string, error) {
	return pick(c.annotations, keys), c.err
}

func (c *memoryCluster) NodeLabels(_ context.Context, _ string, keys []string) (map[string]string, error) {
	return pick(c.labels, keys), c.err
}

func (c *memoryCluster) PodExists(context.Context, string, string, string) (bool, error) {
	return !c.podGone, c.err
}

func pick(all map[string]string, keys []string) map[string]string {
	picked := make(map[string]string)
	for _, key := range keys {
		if value, ok := all[key]; ok {
			picked[key] = value
		}
	}
	return picked
}

// memoryGateway answers with files, or waits until it is released or cancelled.
type memoryGateway struct {
	description *providerv1.DescribeResponse
	response    *gatewayv1.FetchResponse
	err         error
	connected   bool

	mu sync.Mutex
	// block, if set, makes Fetch wait for it to be closed; unblocked is called if
	// its context ends before.
	block     chan struct{}
	unblocked func()
	// answer, if set, is asked instead of response and err.
	answer      func(*gatewayv1.FetchRequest) (*gatewayv1.FetchResponse, error)
	fetched     []*gatewayv1.FetchRequest
	released    []string
	releaseErrs []error // the next answers of Release
}

func (g *memoryGateway) Connected() bool { return g.connected }

func (g *memoryGateway) Describe(context.Context, string) (*providerv1.DescribeResponse, error) {
	return g.description, nil
}

func (g *memoryGateway) Fetch(ctx context.Context, request *gatewayv1.FetchRequest) (*gatewayv1.FetchResponse, error) {
	g.mu.Lock()
	g.fetched = append(g.fetched, request)
	block, unblocked, answer := g.block, g.unblocked, g.answer
	g.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			if unblocked != nil {
				unblocked()
			}
			return nil, context.Cause(ctx)
		}
	}
	if answer != nil {
		response, err := answer(request)
		return fresh(response), err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return fresh(g.response), g.err
}

// hang has Fetch wait until its context ends, and then call unblocked.
func (g *memoryGateway) hang(unblocked func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.block, g.unblocked = make(chan struct{}), unblocked
}

// asked has the gateway ask for its answers from now on.
func (g *memoryGateway) asked(answer func(*gatewayv1.FetchRequest) (*gatewayv1.FetchResponse, error)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answer = answer
}

// become has the gateway answer so from now on.
func (g *memoryGateway) become(response *gatewayv1.FetchResponse, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.response, g.err = response, err
}

// holding is an answer with one file.
func holding(password, version string, mode uint32) *gatewayv1.FetchResponse {
	return &gatewayv1.FetchResponse{
		Files:   []*secretv1.File{{Path: "password", Mode: mode, Contents: []byte(password)}},
		Objects: []*secretv1.ObjectVersion{{Id: "password", Version: version}},
	}
}

// fresh is an answer that was just fetched, unless it says otherwise.
func fresh(response *gatewayv1.FetchResponse) *gatewayv1.FetchResponse {
	if response == nil || response.GetFetchedAt() != nil {
		return response
	}
	response = proto.CloneOf(response)
	response.FetchedAt = timestamppb.Now()
	return response
}

func (g *memoryGateway) Release(_ context.Context, volumeID string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.released = append(g.released, volumeID)
	if len(g.releaseErrs) > 0 {
		err := g.releaseErrs[0]
		g.releaseErrs = g.releaseErrs[1:]
		return err
	}
	return nil
}

func (g *memoryGateway) releases() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.released...)
}

func (g *memoryGateway) fetches() []*gatewayv1.FetchRequest {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]*gatewayv1.FetchRequest(nil), g.fetched...)
}

// memoryVolumes remembers the contents of what is mounted, by target.
type memoryVolumes struct {
	err error

	mu      sync.Mutex
	writes  int
	mounted map[string]map[string]string
}

func (v *memoryVolumes) State(target string) (volume.State, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.mounted[target]; ok {
		return volume.Complete, nil
	}
	return volume.NotMounted, nil
}

// fail makes writes fail from now on.
func (v *memoryVolumes) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.err = err
}

func (v *memoryVolumes) failure() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.err
}

func (v *memoryVolumes) Publish(_ context.Context, spec volume.Spec) error {
	if err := v.failure(); err != nil {
		return err
	}
	files := make(map[string]string)
	for _, file := range spec.Files {
		files[file.Path] = fmt.Sprintf("%v %s", file.Mode, file.Contents.Reveal())
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mounted == nil {
		v.mounted = make(map[string]map[string]string)
	}
	if !maps.Equal(v.mounted[spec.Target], files) {
		v.writes++
	}
	v.mounted[spec.Target] = files
	return nil
}

// lose unmounts what nobody asked to be unmounted.
func (v *memoryVolumes) lose(target string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.mounted, target)
}

func (v *memoryVolumes) Read(target string) ([]volume.File, error) {
	mounted := v.at(target)
	if mounted == nil {
		return nil, volume.ErrNotMounted
	}
	var files []volume.File
	for path, content := range mounted {
		_, content, _ = strings.Cut(content, " ")
		files = append(files, volume.File{Path: path, Contents: redact.NewBytes([]byte(content))})
	}
	return files, nil
}

func (v *memoryVolumes) Update(ctx context.Context, spec volume.Spec) (bool, error) {
	before := v.at(spec.Target)
	if before == nil {
		return false, volume.ErrNotMounted
	}
	err := v.Publish(ctx, spec)
	return !maps.Equal(before, v.at(spec.Target)), err
}

func (v *memoryVolumes) Unpublish(_ context.Context, target string) error {
	if err := v.failure(); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.mounted, target)
	return nil
}

func (v *memoryVolumes) written() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.writes
}

func (v *memoryVolumes) at(target string) map[string]string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mounted[target]
}

// memoryRecorder keeps what it is told.
type memoryRecorder struct {
	mu       sync.Mutex
	statuses []podstatus.Status
	events   []podstatus.Event
	forgot   []string
}

func (r *memoryRecorder) Mounted(status podstatus.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.statuses = append(r.statuses, status)
}

func (r *memoryRecorder) Forget(volumeID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgot = append(r.forgot, volumeID)
}

func (r *memoryRecorder) Tell(event podstatus.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event)
}

// told are the events of a reason.
func (r *memoryRecorder) told(reason podstatus.Reason) []podstatus.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.events), func(e podstatus.Event) bool { return e.Reason != reason })
}

func (r *memoryRecorder) warnings() []podstatus.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.events), func(e podstatus.Event) bool { return e.Normal })
}

// count is how often anything was told.
func (r *memoryRecorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.statuses) + len(r.events)
}

// last is the latest status.
func (r *memoryRecorder) last() podstatus.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.statuses[len(r.statuses)-1]
}

// memoryTriggers knows which classes are watched, by volume id.
type memoryTriggers struct {
	mu      sync.Mutex
	watched map[string]string
}

func (m *memoryTriggers) Add(volumeID, namespace, class string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.watched == nil {
		m.watched = make(map[string]string)
	}
	m.watched[volumeID] = namespace + "/" + class
}

func (m *memoryTriggers) Remove(volumeID string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.watched, volumeID)
}

func (m *memoryTriggers) of(volumeID string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.watched[volumeID]
}

// memorySecrets notes what it is asked to sync.
type memorySecrets struct {
	mu     sync.Mutex
	result secretsync.Result
	err    error
	synced []secretsync.Volume
	files  []map[string]string // what Files gave, for each
	forgot []string
	// before is called at the beginning of each Sync, if set.
	before func()
}

func (m *memorySecrets) Sync(_ context.Context, v secretsync.Volume) (secretsync.Result, error) {
	if m.before != nil {
		m.before()
	}
	contents := make(map[string]string)
	files, err := v.Files()
	for _, file := range files {
		contents[file.Path] = string(file.Contents.Reveal())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.synced, m.files = append(m.synced, v), append(m.files, contents)
	return m.result, errors.Join(m.err, err)
}

func (m *memorySecrets) Forget(volumeID string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgot = append(m.forgot, volumeID)
}

func (m *memorySecrets) become(result secretsync.Result, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.result, m.err = result, err
}

func (m *memorySecrets) syncs() ([]secretsync.Volume, []map[string]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.synced), slices.Clone(m.files)
}

// world is everything that a publisher needs, with one pod and one class that
// work.
type world struct {
	classes  *memoryClasses
	cluster  *memoryCluster
	gateway  *memoryGateway
	volumes  *memoryVolumes
	recorder *memoryRecorder
	triggers *memoryTriggers
	config   publish.Config
}

const (
	target     = "/kubelet/pods/uid-1/volumes/kubernetes.io~csi/secrets/mount"
	canary     = "canary-hunter2"
	annotation = "eks.amazonaws.com/role-arn"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	metrics, err := publish.NewMetrics(metricnoop.NewMeterProvider().Meter(""))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		classes: &memoryClasses{byName: map[string]*apiv1.SecretProviderClass{"shop/database": {
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "database"},
			Spec:       apiv1.SecretProviderClassSpec{Provider: "vault", Parameters: map[string]string{"roleName": "shop"}},
		}}},
		cluster: &memoryCluster{},
		gateway: &memoryGateway{response: &gatewayv1.FetchResponse{
			Files:   []*secretv1.File{{Path: "password", Mode: 0o640, Contents: []byte(canary)}},
			Objects: []*secretv1.ObjectVersion{{Id: "password", Version: "1"}},
		}},
		volumes:  &memoryVolumes{},
		recorder: &memoryRecorder{},
		triggers: &memoryTriggers{},
	}
	w.config = publish.Config{
		NodeName:              "node-1",
		SecretProviderClasses: w.classes,
		Cluster:               w.cluster,
		Gateway:               w.gateway,
		Volumes:               w.volumes,
		Recorder:              w.recorder,
		Triggers:              w.triggers,
		Tracer:                tracenoop.NewTracerProvider().Tracer(""),
		Metrics:               metrics,
		Logger:                slog.New(slog.DiscardHandler),
	}
	return w
}

func (w *world) publisher(t *testing.T) *publish.Publisher {
	t.Helper()
	p, err := publish.New(w.config)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// running returns a publisher that runs until the test ends.
func (w *world) running(t *testing.T) *publish.Publisher {
	t.Helper()
	p := w.publisher(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p
}

// request is a publish of the pod "shop/web" as kubelet asks for it.
func request(t *testing.T, change func(volumeContext, secrets map[string]string)) publish.Request {
	t.Helper()
	volumeContext := map[string]string{
		"secretProviderClass":                      "database",
		"csi.storage.k8s.io/pod.name":              "web",
		"csi.storage.k8s.io/pod.namespace":         "shop",
		"csi.storage.k8s.io/pod.uid":               "uid-1",
		"csi.storage.k8s.io/serviceAccount.name":   "web-sa",
		"csi.storage.k8s.io/ephemeral":             "true",
		"csi.storage.k8s.io/serviceAccount.tokens": `{"vault":{"token":"` + canary + `","expirationTimestamp":"2030-01-01T00:00:00Z"}}`,
	}
	secrets := map[string]string{}
	if change != nil {
		change(volumeContext, secrets)
	}
	r := publish.Request{VolumeID: "csi-1", Target: target}
	if err := r.ParseContext(volumeContext, secrets); err != nil {
		t.Fatal(err)
	}
	return r
}
