package publish

import (
	"context"
	"io/fs"
	"maps"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/podstatus"
	"github.com/postern-dev/postern/driver/internal/refresh"
	"github.com/postern-dev/postern/driver/internal/volume"
	"github.com/postern-dev/postern/internal/redact"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// defaultFileMode is the mode of files whose object does not set one, as in
// the upstream driver.
const defaultFileMode fs.FileMode = 0o644

// transaction is one mount or one refresh. Only its goroutine touches it.
type transaction struct {
	publisher *Publisher
	request   Request
	// provider is known once the SPC is read.
	provider string

	// The rest is a refresh's: the volume, what it holds, and when somebody asked
	// for it, if it is not due by itself. A mount has none of it.
	volume      *mountedVolume
	held        content
	requestedAt time.Time
	// unsyncedCount is how often in a row its Secrets were not in place.
	unsyncedCount int
	// syncOnly says that its content is not due, but its Secrets.
	syncOnly bool
	// found is what was found out before the content was fetched.
	found content
	// fetched is set once the gateway was asked.
	fetched bool
}

// outcome is what a mount or a refresh brought.
type outcome struct {
	content content
	// began is when it was begun to ask for content.
	began time.Time
	// changed says that a refresh changed files.
	changed bool
	// stale is set if the answer was kept from before, because the store is
	// unreachable.
	stale *podstatus.Failure
	// unsynced is set if a Kubernetes Secret is not as it should be, and users are
	// to know.
	unsynced *podstatus.Failure
	// syncAgain says that it is to be tried again.
	syncAgain bool
}

// mount puts the volume in place. Secrets are synced before, so that a volume
// that is in place is one that the pod can start with.
func (t *transaction) mount(ctx context.Context) (outcome, error) {
	t.observe("read the class")
	class, err := t.secretProviderClass(ctx)
	if err != nil {
		return outcome{}, err
	}
	t.provider = string(class.Spec.Provider)
	interval, err := t.interval(class)
	if err != nil {
		return outcome{}, err
	}
	o := outcome{began: time.Now()}
	t.observe("fetch")
	response, err := t.fetch(ctx, class, &gatewayv1.FetchRequest{RefreshInterval: optionalDuration(interval)})
	if err != nil {
		return outcome{}, t.annotate(err)
	}
	o.content = t.contentOf(class, interval, response)
	if response.GetSource() == gatewayv1.Source_SOURCE_STALE {
		o.stale = t.noticeStale(ctx, o.content.fetchedAt)
	}
	files := filesOf(response)
	defer wipe(files)
	if err := t.syncBeforeMount(ctx, class, &o, files); err != nil {
		return outcome{}, err
	}
	_, err = t.write(ctx, files, func(ctx context.Context, spec volume.Spec) (bool, error) {
		return true, t.publisher.cfg.Volumes.Publish(ctx, spec)
	})
	if err != nil {
		return outcome{}, mountError(t.request.Target, err)
	}
	t.observe("answer")
	return o, nil
}

// contentOf is what a volume holds that holds an answer.
func (t *transaction) contentOf(class *apiv1.SecretProviderClass, interval time.Duration, response *gatewayv1.FetchResponse) content {
	now := time.Now()
	c := content{
		provider:  t.provider,
		objects:   response.GetObjects(),
		state:     response.GetProviderState(),
		fetchedAt: now,
		interval:  interval,
		revision:  revisionOf(class),
		requested: class.Annotations[apiv1.AnnotationRefresh],
	}
	if response.GetFetchedAt().IsValid() {
		// Of what is left of a time in an answer only its distance to now counts: a
		// clock that is set must not make a volume due in an hour or at once.
		c.fetchedAt = now.Add(-max(0, now.Sub(response.GetFetchedAt().AsTime())))
	}
	if after := response.GetRefreshAfter().AsDuration(); after > 0 {
		// Something expires. That is no reason to look at the rest less often.
		after, c.byProvider = max(after, refresh.MinInterval), true
		if interval == 0 || after < interval {
			c.interval = after
		}
	}
	return c
}

func (t *transaction) observe(step string) {
	if observe := t.publisher.cfg.Observe; observe != nil {
		observe(step)
	}
}

func (t *transaction) secretProviderClass(ctx context.Context) (*apiv1.SecretProviderClass, error) {
	ctx, span := t.publisher.cfg.Tracer.Start(ctx, "driver.GetSecretProviderClass")
	defer span.End()
	namespace, name := t.request.Pod.Namespace, t.request.SecretProviderClass
	class, err := t.publisher.cfg.SecretProviderClasses.SecretProviderClass(ctx, namespace, name)
	if err != nil {
		return nil, classError(namespace, name, err)
	}
	if err := validateClass(class); err != nil {
		return nil, err
	}
	return class, nil
}

// fetch asks the gateway, which waits for the provider; request has what only a
// mount or only a refresh asks for. While a pod waits for its mount its users are
// told what for, and a pod that is gone ends it.
func (t *transaction) fetch(ctx context.Context, class *apiv1.SecretProviderClass, request *gatewayv1.FetchRequest) (*gatewayv1.FetchResponse, error) {
	if t.volume == nil {
		var stop func()
		ctx, stop = t.watchWait(ctx)
		defer stop()
	}
	gateway := t.publisher.cfg.Gateway
	description, err := gateway.Describe(ctx, t.provider)
	if err != nil {
		return nil, err
	}
	if err := t.complete(ctx, class, request); err != nil {
		return nil, err
	}
	if err := t.addSurroundings(ctx, description, request); err != nil {
		return nil, err
	}
	t.fetched = true
	return gateway.Fetch(ctx, request)
}

// complete adds what every fetch for the pod asks for.
func (t *transaction) complete(ctx context.Context, class *apiv1.SecretProviderClass, request *gatewayv1.FetchRequest) error {
	r := &t.request
	tokens, err := r.Tokens()
	if err != nil {
		return err
	}
	request.VolumeId = r.VolumeID
	request.Provider = t.provider
	request.Pod = &secretv1.Pod{
		Namespace:      r.Pod.Namespace,
		Name:           r.Pod.Name,
		Uid:            r.Pod.UID,
		ServiceAccount: &secretv1.ServiceAccount{Name: r.Pod.ServiceAccount},
	}
	request.Node = &secretv1.Node{Name: t.publisher.cfg.NodeName}
	request.SecretProviderClass = class.Name
	request.Parameters = t.parameters(ctx, class)
	request.Secrets = reveal(r.Secrets)
	request.DefaultFileMode = uint32(defaultFileMode)
	request.TargetPath = r.Target
	for _, token := range tokens {
		request.Tokens = append(request.Tokens, &secretv1.Token{
			Audience: token.Audience,
			Token:    token.Token.Reveal(),
			Expiry:   timestamppb.New(token.Expiry),
		})
	}
	return nil
}

// parameters are the SPC's, and the pod's volumeAttributes where that is
// allowed; where it is not, the pod's users are told that they do not count.
func (t *transaction) parameters(ctx context.Context, class *apiv1.SecretProviderClass) map[string]string {
	parameters := refresh.WithoutInterval(class.Spec.Parameters)
	if len(t.request.Attributes) == 0 {
		return parameters
	}
	if t.publisher.cfg.AllowParameterOverrides {
		maps.Copy(parameters, t.request.Attributes)
		return parameters
	}
	names := slices.Sorted(maps.Keys(t.request.Attributes))
	t.warn(ctx, podstatus.ReasonAttributesIgnored, ignoredAttributes(names))
	return parameters
}

// addSurroundings adds what the provider asked for of the service account and
// the node, so that it needs no access to the API server.
func (t *transaction) addSurroundings(ctx context.Context, description *providerv1.DescribeResponse, request *gatewayv1.FetchRequest) error {
	cluster := t.publisher.cfg.Cluster
	if cluster == nil {
		return nil
	}
	if keys := description.GetServiceAccountAnnotations(); len(keys) > 0 {
		annotations, err := cluster.ServiceAccountAnnotations(ctx, t.request.Pod.Namespace, t.request.Pod.ServiceAccount, keys)
		if err != nil {
			return clusterError("read the annotations of the pod's service account", err)
		}
		request.Pod.ServiceAccount.Annotations = annotations
	}
	if keys := description.GetNodeLabels(); len(keys) > 0 {
		labels, err := cluster.NodeLabels(ctx, t.publisher.cfg.NodeName, keys)
		if err != nil {
			return clusterError("read the node's labels", err)
		}
		request.Node.Labels = labels
	}
	return nil
}

// write has files put in place, and reports whether that changed something.
func (t *transaction) write(ctx context.Context, files []volume.File, put func(context.Context, volume.Spec) (bool, error)) (changed bool, err error) {
	ctx, span := t.publisher.cfg.Tracer.Start(ctx, "driver.WriteVolume", trace.WithAttributes(
		attribute.Int("postern.files", len(files)),
	))
	defer span.End()
	changed, err = put(ctx, volume.Spec{
		Target:         t.request.Target,
		GID:            t.request.Group,
		SELinuxContext: t.request.SELinuxContext,
		Files:          files,
	})
	span.SetAttributes(attribute.Bool("postern.changed", changed))
	return changed, err
}

// filesOf are the files of an answer, for the caller to wipe.
func filesOf(response *gatewayv1.FetchResponse) []volume.File {
	files := make([]volume.File, 0, len(response.GetFiles()))
	for _, file := range response.GetFiles() {
		files = append(files, volume.File{
			Path:     file.GetPath(),
			Mode:     fs.FileMode(file.GetMode()) & fs.ModePerm,
			Contents: redact.NewBytes(file.GetContents()),
		})
	}
	return files
}

func wipe(files []volume.File) {
	for _, file := range files {
		file.Contents.Wipe()
	}
}

func optionalDuration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

func reveal(secrets map[string]redact.String) map[string]string {
	revealed := make(map[string]string, len(secrets))
	for key, value := range secrets {
		revealed[key] = value.Reveal()
	}
	return revealed
}
