package pods_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
)

// mostReplicas is how many pods of a Deployment start at once, if the node
// takes so many.
const mostReplicas = 100

// The pods of a Deployment whose environment is of a synced Secret start at the
// first attempt, all at once. The Secret is made once, and lives as long as the
// Deployment has a ReplicaSet.
func testSyncDeployment(n *tenant) {
	n.syncedClass("1m", []string{"password"}, dbSecret())
	became := n.watchSecret("db")
	replicas := roomFor(n.t)
	started := time.Now()
	n.deploy(replicas)
	n.rolledOut(replicas)
	n.t.Logf("measured: sync: %d pods with a variable of a synced Secret were ready after %s", replicas, time.Since(started).Round(time.Second))
	n.startedFirstTime()
	became.want(watch.Added)
	if got := n.exec("deployment/web", "sh", "-c", "echo $DB_PASSWORD"); got != "hunter2\n" {
		n.t.Errorf("the pod has DB_PASSWORD=%q", got)
	}
	made := n.secret("db")

	n.patchDeployment(`{"spec":{"replicas":1}}`)
	n.rolledOut(1)
	n.patchDeployment(`{"spec":{"replicas":0}}`)
	n.rolledOut(0)
	n.patchDeployment(`{"spec":{"replicas":3}}`)
	n.rolledOut(3)
	became.want(watch.Added) // and neither written nor deleted since

	// A rollout makes another ReplicaSet, which is one more owner.
	n.patchDeployment(`{"spec":{"template":{"metadata":{"annotations":{"restarted":"once"}}}}}`)
	n.rolledOut(3)
	became.want(watch.Added, watch.Modified)
	n.wantOwners(2)
	// The first ReplicaSet goes, and Kubernetes takes it from the owners.
	n.patchDeployment(`{"spec":{"revisionHistoryLimit":0}}`)
	n.wantOwners(1)
	if now := n.secret("db"); now.UID != made.UID {
		n.t.Error("the Secret was made anew while there was a ReplicaSet")
	}
	n.startedFirstTime()

	must(n.t, shared.client.AppsV1().Deployments(n.namespace).Delete(n.t.Context(), "web", metav1.DeleteOptions{}))
	podsGone(n.t, n.namespace, "app=web")
	n.eventuallyNoSecret("db")
}

// roomFor tells how many pods more the node takes, leaving some for others.
func roomFor(t *testing.T) int32 {
	t.Helper()
	const spare = 5
	node, err := shared.client.CoreV1().Nodes().Get(t.Context(), shared.cluster.NodeName(), metav1.GetOptions{})
	must(t, err)
	list, err := shared.client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	must(t, err)
	return int32(min(mostReplicas, node.Status.Allocatable.Pods().Value()-int64(len(list.Items))-spare))
}

// deploy creates a Deployment web whose pods take a variable from Secret db.
func (n *tenant) deploy(replicas int32) {
	n.t.Helper()
	labels := map[string]string{"app": "web"}
	spec := n.pod("web", "app").Spec
	spec.HostNetwork = true // saves the time of setting up its own
	spec.Containers[0].Env = []corev1.EnvVar{{Name: "DB_PASSWORD", ValueFrom: &corev1.EnvVarSource{
		SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "db"}, Key: "password"},
	}}}
	all, none := intstr.FromString("100%"), intstr.FromInt32(0)
	_, err := shared.client.AppsV1().Deployments(n.namespace).Create(n.t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Strategy: appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: &all, MaxSurge: &none}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec},
		},
	}, metav1.CreateOptions{})
	must(n.t, err)
}

func (n *tenant) patchDeployment(patch string) {
	n.t.Helper()
	_, err := shared.client.AppsV1().Deployments(n.namespace).Patch(n.t.Context(), "web", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	must(n.t, err)
}

// rolledOut waits until the Deployment has just these pods, all of its present
// state and ready.
func (n *tenant) rolledOut(replicas int32) {
	n.t.Helper()
	eventually(n.t, 10*time.Minute, fmt.Sprintf("%d pods of the Deployment", replicas), func(ctx context.Context) error {
		deployment, err := shared.client.AppsV1().Deployments(n.namespace).Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		pods, err := shared.client.CoreV1().Pods(n.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
		if err != nil {
			return err
		}
		s := deployment.Status
		if s.ObservedGeneration < deployment.Generation || s.UpdatedReplicas != replicas || s.ReadyReplicas != replicas || len(pods.Items) != int(replicas) {
			return fmt.Errorf("%d of %d are of its present state, %d ready", s.UpdatedReplicas, len(pods.Items), s.ReadyReplicas)
		}
		return nil
	})
}

// startedFirstTime fails the test if any start of the tenant's pods failed: a
// Secret that is not there is event Failed, and CreateContainerConfigError.
func (n *tenant) startedFirstTime() {
	n.t.Helper()
	list, err := shared.client.CoreV1().Events(n.namespace).List(n.t.Context(), metav1.ListOptions{})
	must(n.t, err)
	for _, event := range list.Items {
		if event.Reason == "FailedMount" && !strings.Contains(event.Message, "rpc error") {
			continue // kubelet did not get as far as the driver: a busy API server may refuse its tokens at first
		}
		if slices.Contains([]string{"Failed", "FailedMount", "BackOff", eventSecretFailed}, event.Reason) {
			n.t.Errorf("event %s of %s: %s", event.Reason, event.InvolvedObject.Name, event.Message)
		}
	}
}

// wantOwners waits until Secret db has so many owners, all of them ReplicaSets
// of the Deployment that are there.
func (n *tenant) wantOwners(count int) {
	n.t.Helper()
	eventually(n.t, 2*time.Minute, "the owners of the Secret", func(ctx context.Context) error {
		sets, err := shared.client.AppsV1().ReplicaSets(n.namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		var want, got []types.UID
		for _, set := range sets.Items {
			want = append(want, set.UID)
		}
		secret, err := shared.client.CoreV1().Secrets(n.namespace).Get(ctx, "db", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, owner := range secret.OwnerReferences {
			if owner.Controller != nil || owner.BlockOwnerDeletion != nil {
				err = errors.Join(err, fmt.Errorf("owner %s is more than an owner", owner.Name))
			}
			got = append(got, owner.UID)
		}
		slices.Sort(want)
		slices.Sort(got)
		if len(got) != count || !slices.Equal(got, want) {
			err = errors.Join(err, fmt.Errorf("they are %v, want %d: %v", got, count, want))
		}
		return err
	})
}
