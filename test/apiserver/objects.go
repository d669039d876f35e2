package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"
)

// fieldManager owns what tests apply.
const fieldManager = "postern-test"

func (s *Server) makeClients() error {
	client, err := kubernetes.NewForConfig(s.Rest)
	if err != nil {
		return fmt.Errorf("make the admin's client: %w", err)
	}
	s.Client = client
	if s.Dynamic, err = dynamic.NewForConfig(s.Rest); err != nil {
		return fmt.Errorf("make the admin's dynamic client: %w", err)
	}
	s.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	return nil
}

// Apply applies one object as YAML, as "kubectl apply --server-side" would. An
// object without a namespace goes to "default", if its kind has namespaces.
func (s *Server) Apply(ctx context.Context, manifest string) error {
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(manifest), &object.Object); err != nil {
		return fmt.Errorf("read a manifest: %w", err)
	}
	name := object.GetKind() + " " + object.GetName()
	mapping, err := s.mapper.RESTMapping(object.GroupVersionKind().GroupKind(), object.GroupVersionKind().Version)
	if err != nil {
		s.mapper.Reset() // a CRD that came since
		mapping, err = s.mapper.RESTMapping(object.GroupVersionKind().GroupKind(), object.GroupVersionKind().Version)
	}
	if err != nil {
		return fmt.Errorf("apply %s: %w", name, err)
	}
	var target dynamic.ResourceInterface = s.Dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() == "namespace" {
		namespace := object.GetNamespace()
		if namespace == "" {
			namespace = "default"
		}
		target = s.Dynamic.Resource(mapping.Resource).Namespace(namespace)
	}
	if _, err := target.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
		return fmt.Errorf("apply %s: %w", name, err)
	}
	return nil
}

// ApplyCRDs applies every YAML file of dir and waits until the API server serves
// the types.
func (s *Server) ApplyCRDs(ctx context.Context, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return fmt.Errorf("look for CRDs: %w", err)
	}
	if len(files) == 0 {
		return fmt.Errorf("no CRD in %s", dir)
	}
	for _, file := range files {
		manifest, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read a CRD: %w", err)
		}
		if err := s.Apply(ctx, string(manifest)); err != nil {
			return err
		}
		var crd metav1.PartialObjectMetadata
		if err := yaml.Unmarshal(manifest, &crd); err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		if err := s.waitEstablished(ctx, crd.Name); err != nil {
			return err
		}
	}
	s.mapper.Reset()
	return nil
}

func (s *Server) waitEstablished(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	crds := s.Dynamic.Resource(schema.GroupVersionResource{
		Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions",
	})
	return s.process.WaitFor(ctx, func(ctx context.Context) error {
		crd, err := crds.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		conditions, _, err := unstructured.NestedSlice(crd.Object, "status", "conditions")
		if err != nil {
			return err
		}
		for _, condition := range conditions {
			c, ok := condition.(map[string]any)
			if ok && c["type"] == "Established" && c["status"] == "True" {
				return nil
			}
		}
		return fmt.Errorf("%s is not established yet", name)
	})
}

// EnsureNamespace creates a namespace unless it is there.
func (s *Server) EnsureNamespace(ctx context.Context, name string) error {
	_, err := s.Client.CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	return nil
}

// EnsureServiceAccount creates a service account, and its namespace, unless
// they are there.
func (s *Server) EnsureServiceAccount(ctx context.Context, namespace, name string) error {
	if err := s.EnsureNamespace(ctx, namespace); err != nil {
		return err
	}
	_, err := s.Client.CoreV1().ServiceAccounts(namespace).Create(ctx,
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create service account %s/%s: %w", namespace, name, err)
	}
	return nil
}

// CreatePod creates a pod that runs nowhere, with one inline volume of the
// driver.
func (s *Server) CreatePod(ctx context.Context, pod Pod) (*corev1.Pod, error) {
	readOnly := true
	created, err := s.Client.CoreV1().Pods(pod.Namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name},
		Spec: corev1.PodSpec{
			ServiceAccountName: pod.ServiceAccount,
			NodeName:           pod.Node,
			Containers:         []corev1.Container{{Name: "app", Image: "example.invalid/app"}},
			Volumes: []corev1.Volume{{Name: pod.Volume, VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
				Driver: "secrets-store.csi.k8s.io", ReadOnly: &readOnly,
				VolumeAttributes: map[string]string{"secretProviderClass": pod.SecretProviderClass},
			}}}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return created, nil
}

// DeletePod deletes a pod at once: there is no kubelet that would end it first.
func (s *Server) DeletePod(ctx context.Context, namespace, name string) error {
	now := int64(0)
	err := s.Client.CoreV1().Pods(namespace).Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	if err != nil {
		return fmt.Errorf("delete pod %s/%s: %w", namespace, name, err)
	}
	return nil
}

// Pod is what CreatePod needs to know.
type Pod struct {
	Namespace, Name, ServiceAccount, Node, Volume, SecretProviderClass string
}

// Tokens returns tokens of the pod's service account, bound to the pod, one per
// audience: the JSON that kubelet puts into csi.storage.k8s.io/serviceAccount.tokens.
// It holds secrets.
func (s *Server) Tokens(ctx context.Context, pod *corev1.Pod, audiences ...string) (string, error) {
	tokens := map[string]authenticationv1.TokenRequestStatus{}
	for _, audience := range audiences {
		status, err := s.token(ctx, pod.Namespace, pod.Spec.ServiceAccountName, authenticationv1.TokenRequestSpec{
			Audiences: []string{audience},
			BoundObjectRef: &authenticationv1.BoundObjectReference{
				Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID,
			},
		})
		if err != nil {
			return "", err
		}
		tokens[audience] = status
	}
	encoded, err := json.Marshal(tokens)
	if err != nil {
		return "", errors.New("encode the tokens") // the cause could quote them
	}
	return string(encoded), nil
}

// ServiceAccountToken returns a token for the API server itself, as a process of
// that service account would hold.
func (s *Server) ServiceAccountToken(ctx context.Context, namespace, name string) (string, error) {
	status, err := s.token(ctx, namespace, name, authenticationv1.TokenRequestSpec{})
	return status.Token, err
}

func (s *Server) token(ctx context.Context, namespace, name string, spec authenticationv1.TokenRequestSpec) (authenticationv1.TokenRequestStatus, error) {
	if spec.Audiences == nil {
		spec.Audiences = []string{}
	}
	request, err := s.Client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name,
		&authenticationv1.TokenRequest{Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.TokenRequestStatus{}, fmt.Errorf("request a token of %s/%s: %w", namespace, name, err)
	}
	return request.Status, nil
}

// BindClusterRole gives a service account a cluster role of exactly these rules.
func (s *Server) BindClusterRole(ctx context.Context, role, namespace, account string, rules []rbacv1.PolicyRule) error {
	roles, bindings := s.Client.RbacV1().ClusterRoles(), s.Client.RbacV1().ClusterRoleBindings()
	object := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: role}, Rules: rules}
	if rules != nil {
		if _, err := roles.Create(ctx, object, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create cluster role %s: %w", role, err)
		}
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role + ":" + namespace + ":" + account},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}},
	}
	if _, err := bindings.Create(ctx, binding, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("bind cluster role %s: %w", role, err)
	}
	return nil
}
