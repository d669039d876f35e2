package bench

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/postern-dev/postern/test/apiserver"
	"github.com/postern-dev/postern/test/bench/provider"
	"github.com/postern-dev/postern/test/kubelet"
)

// className is the SecretProviderClass's of each workload, in its namespace.
const className = "app"

// prepareAtOnce is how many pods are made at once.
const prepareAtOnce = 16

// workload is pods that mount a class, in a namespace of their own.
type workload struct {
	name              string
	volumes, accounts int
	// latency of the store, its calls per second (0 is no limit), and whether
	// it refuses each pod once.
	latency     time.Duration
	rate        int
	refuseFirst bool
	// parameters of the class beyond these.
	parameters map[string]string
}

// prepared is a workload whose pods are there and whose volumes are not.
type prepared struct {
	namespace string
	volumes   []kubelet.Volume
}

// prepare makes the class, the service accounts and the pods with their tokens.
func (e *environment) prepare(ctx context.Context, s *side, w workload) (prepared, error) {
	p := prepared{namespace: w.name + "-" + s.slug, volumes: make([]kubelet.Volume, w.volumes)}
	if err := e.api.EnsureNamespace(ctx, p.namespace); err != nil {
		return p, err
	}
	if err := e.applyClass(ctx, p.namespace, w); err != nil {
		return p, err
	}
	for i := range w.accounts {
		if err := e.api.EnsureServiceAccount(ctx, p.namespace, account(i)); err != nil {
			return p, err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(prepareAtOnce)
	for i := range p.volumes {
		group.Go(func() (err error) {
			p.volumes[i], err = e.pod(ctx, s, p.namespace, "pod-"+strconv.Itoa(i), account(i%w.accounts))
			return err
		})
	}
	return p, group.Wait()
}

func account(i int) string { return "account-" + strconv.Itoa(i) }

func (e *environment) applyClass(ctx context.Context, namespace string, w workload) error {
	parameters := map[string]string{
		provider.ParameterStore:       namespace,
		provider.ParameterLatency:     w.latency.String(),
		provider.ParameterRate:        strconv.Itoa(w.rate),
		provider.ParameterRefuseFirst: strconv.FormatBool(w.refuseFirst),
	}
	maps.Copy(parameters, w.parameters)
	manifest, err := yaml.Marshal(map[string]any{
		"apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
		"metadata": map[string]any{"name": className, "namespace": namespace},
		"spec":     map[string]any{"provider": provider.Name, "parameters": parameters},
	})
	if err != nil {
		return fmt.Errorf("write the class of %s: %w", namespace, err)
	}
	return e.api.Apply(ctx, string(manifest))
}

func (e *environment) pod(ctx context.Context, s *side, namespace, name, account string) (kubelet.Volume, error) {
	pod, err := e.api.CreatePod(ctx, apiserver.Pod{
		Namespace: namespace, Name: name, ServiceAccount: account, Node: s.node,
		Volume: "secrets", SecretProviderClass: className,
	})
	if err != nil {
		return kubelet.Volume{}, err
	}
	tokens, err := e.api.Tokens(ctx, pod, provider.Audience)
	return kubelet.Volume{
		Namespace: namespace, Pod: name, UID: string(pod.UID), ServiceAccount: account,
		Name: "secrets", SecretProviderClass: className, Tokens: tokens,
	}, err
}

// podStatuses is the resource of SecretProviderClassPodStatuses.
func podStatuses() schema.GroupVersionResource {
	return schema.GroupVersionResource{
		Group: "secrets-store.csi.x-k8s.io", Version: "v1", Resource: "secretproviderclasspodstatuses",
	}
}

// settle waits until each volume has its status object, which Postern writes
// after it has answered kubelet.
func (e *environment) settle(ctx context.Context, s *side, p prepared) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return s.daemons[0].WaitFor(ctx, func(ctx context.Context) error {
		list, err := e.api.Dynamic.Resource(podStatuses()).Namespace(p.namespace).List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) < len(p.volumes) {
			err = fmt.Errorf("%d of %d volumes have a SecretProviderClassPodStatus", len(list.Items), len(p.volumes))
		}
		return err
	})
}

// remove takes the volumes away, and the pods.
func (e *environment) remove(ctx context.Context, s *side, p prepared) error {
	if err := s.unpublish(ctx, p.volumes); err != nil {
		return err
	}
	now := int64(0)
	options := metav1.DeleteOptions{GracePeriodSeconds: &now}
	if err := e.api.Client.CoreV1().Pods(p.namespace).DeleteCollection(ctx, options, metav1.ListOptions{}); err != nil {
		return fmt.Errorf("delete the pods of %s: %w", p.namespace, err)
	}
	if err := e.api.Dynamic.Resource(podStatuses()).Namespace(p.namespace).DeleteCollection(ctx, options, metav1.ListOptions{}); err != nil {
		return fmt.Errorf("delete the statuses of %s: %w", p.namespace, err)
	}
	return nil
}
