package publish

import (
	"context"
	"io/fs"
	"maps"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/podstatus"
	"github.com/postern-dev/postern/driver/internal/volume"
	"github.com/postern-dev/postern/internal/redact"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
)

// defaultFileMode is the mode of files whose object does not set one, as in
// the upstream driver.
const defaultFileMode fs.FileMode = 0o644

// transaction is one Publish call. Only its goroutine touches it.
type transaction struct {
	publisher *Publisher
	request   Request
	// provider is known once the SPC is read.
	provider string
	// refreshing is set for a volume that is mounted.
	refreshing bool
}

// run reports whether the call was a repeated one: the volume was there.
func (t *transaction) run(ctx context.Context) (repeated bool, err error) {
	t.observe("look at the target")
	state, err := t.publisher.cfg.Volumes.State(t.request.Target)
	if err != nil {
		return false, mountPointError(t.request.Target, err)
	}
	if state == volume.Complete {
		t.refresh(ctx)
		return true, nil
	}
	response, err := t.bring(ctx, t.publisher.cfg.Volumes.Publish)
	if err != nil {
		return false, err
	}
	t.observe("answer")
	t.recordMounted(ctx, response)
	return false, nil
}

// bring fetches the secrets and has them written by put.
func (t *transaction) bring(ctx context.Context, put func(context.Context, volume.Spec) error) (*gatewayv1.FetchResponse, error) {
	t.observe("read the class")
	class, err := t.secretProviderClass(ctx)
	if err != nil {
		return nil, err
	}
	t.provider = string(class.Spec.Provider)
	t.observe("fetch")
	response, err := t.fetch(ctx, class)
	if err != nil {
		return nil, t.annotate(err)
	}
	if err := t.write(ctx, response, put); err != nil {
		return nil, mountError(t.request.Target, err)
	}
	return response, nil
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

// fetch asks the gateway, which waits for the provider; meanwhile the pod's
// users are told what is waited for, and a pod that is gone ends it.
func (t *transaction) fetch(ctx context.Context, class *apiv1.SecretProviderClass) (*gatewayv1.FetchResponse, error) {
	ctx, stop := t.watchWait(ctx)
	defer stop()
	gateway := t.publisher.cfg.Gateway
	description, err := gateway.Describe(ctx, t.provider)
	if err != nil {
		return nil, err
	}
	request := t.fetchRequest(ctx, class)
	if err := t.addSurroundings(ctx, description, request); err != nil {
		return nil, err
	}
	return gateway.Fetch(ctx, request)
}

func (t *transaction) fetchRequest(ctx context.Context, class *apiv1.SecretProviderClass) *gatewayv1.FetchRequest {
	r := &t.request
	request := &gatewayv1.FetchRequest{
		VolumeId: r.VolumeID,
		Provider: t.provider,
		Pod: &secretv1.Pod{
			Namespace:      r.Pod.Namespace,
			Name:           r.Pod.Name,
			Uid:            r.Pod.UID,
			ServiceAccount: &secretv1.ServiceAccount{Name: r.Pod.ServiceAccount},
		},
		Node:                &secretv1.Node{Name: t.publisher.cfg.NodeName},
		SecretProviderClass: class.Name,
		Parameters:          t.parameters(ctx, class),
		Secrets:             reveal(r.Secrets),
		DefaultFileMode:     uint32(defaultFileMode),
		TargetPath:          r.Target,
		Refresh:             t.refreshing,
	}
	for _, token := range r.Tokens {
		request.Tokens = append(request.Tokens, &secretv1.Token{
			Audience: token.Audience,
			Token:    token.Token.Reveal(),
			Expiry:   timestamppb.New(token.Expiry),
		})
	}
	return request
}

// parameters are the SPC's, and the pod's volumeAttributes where that is
// allowed; where it is not, the pod's users are told that they do not count.
func (t *transaction) parameters(ctx context.Context, class *apiv1.SecretProviderClass) map[string]string {
	parameters := maps.Clone(class.Spec.Parameters)
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

func (t *transaction) write(ctx context.Context, response *gatewayv1.FetchResponse, put func(context.Context, volume.Spec) error) error {
	ctx, span := t.publisher.cfg.Tracer.Start(ctx, "driver.WriteVolume", trace.WithAttributes(
		attribute.Int("postern.files", len(response.GetFiles())),
	))
	defer span.End()
	spec := volume.Spec{
		Target:         t.request.Target,
		GID:            t.request.Group,
		SELinuxContext: t.request.SELinuxContext,
		Files:          make([]volume.File, 0, len(response.GetFiles())),
	}
	for _, file := range response.GetFiles() {
		spec.Files = append(spec.Files, volume.File{
			Path:     file.GetPath(),
			Mode:     fs.FileMode(file.GetMode()) & fs.ModePerm,
			Contents: redact.NewBytes(file.GetContents()),
		})
	}
	defer func() {
		for _, file := range spec.Files {
			file.Contents.Wipe()
		}
	}()
	return put(ctx, spec)
}

func reveal(secrets map[string]redact.String) map[string]string {
	revealed := make(map[string]string, len(secrets))
	for key, value := range secrets {
		revealed[key] = value.Reveal()
	}
	return revealed
}
