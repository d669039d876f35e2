package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// lookupTimeout is how long a try of DNS may take: what is sent before kube-proxy
// knows the Service is lost.
const lookupTimeout = time.Second

// bringUp takes a node that has just been started to where pods can run. On a
// first start there are images to import.
func (c *Cluster) bringUp(ctx context.Context, images []string) error {
	client, err := kubernetes.NewForConfig(c.rest)
	if err != nil {
		return fmt.Errorf("make a client of the API server: %w", err)
	}
	both, bothCtx := errgroup.WithContext(ctx)
	both.Go(func() error { return c.startRuntime(bothCtx, images) })
	both.Go(func() error { return c.startAPI(bothCtx, client) })
	if err := both.Wait(); err != nil {
		return err
	}
	if len(images) > 0 {
		if err := c.reach(ctx, c.dnsInstalled()); err != nil {
			return err
		}
	}
	return c.startPods(ctx, client)
}

func (c *Cluster) startRuntime(ctx context.Context, images []string) error {
	err := c.reach(ctx, stage{
		done: "containerd answers", blame: []string{"node", "containerd"},
		check: func(ctx context.Context) error { _, err := c.imageNames(ctx); return err },
	})
	if err != nil || len(images) == 0 {
		return err
	}
	if err := c.ImportImages(ctx, images...); err != nil {
		return &failure{err: err, blame: []string{"containerd"}}
	}
	c.say("%d images are imported", len(images))
	return nil
}

func (c *Cluster) startAPI(ctx context.Context, client kubernetes.Interface) error {
	return c.reach(ctx, stage{
		done: "the API server is ready", blame: []string{"node", "etcd", "kube-apiserver"},
		check: func(ctx context.Context) error {
			return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
		},
	})
}

// dnsInstalled is the stage in which CoreDNS is given to the API server.
func (c *Cluster) dnsInstalled() stage {
	return stage{
		done: "CoreDNS is installed", blame: []string{"kube-apiserver", "kube-controller-manager"},
		check: func(ctx context.Context) error {
			manifests := filepath.Join(c.dir.config(), "coredns.yaml")
			if output, err := c.Command(ctx, "kubectl", "apply", "-f", manifests).CombinedOutput(); err != nil {
				return fmt.Errorf("kubectl apply: %w: %s", err, output)
			}
			return nil
		},
	}
}

func (c *Cluster) startPods(ctx context.Context, client kubernetes.Interface) error {
	for _, s := range []stage{
		{
			done: "the node is Ready", blame: []string{"kubelet", "containerd"},
			check: func(ctx context.Context) error { return c.nodeReady(ctx, client) },
		},
		{
			done: "pods can be created", blame: []string{"kube-controller-manager"},
			check: func(ctx context.Context) error {
				_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
				return err
			},
		},
		{
			done: "DNS answers", blame: []string{"kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"},
			check: func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
				defer cancel()
				_, err := c.Resolver().LookupHost(ctx, "kubernetes.default.svc."+domain+".")
				return err
			},
		},
	} {
		if err := c.reach(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// nodeReady tells whether the kubelet of this boot, not an earlier one, has said
// that the node is Ready.
func (c *Cluster) nodeReady(ctx context.Context, client kubernetes.Interface) error {
	boot, err := os.ReadFile(c.NodePath("/proc/sys/kernel/random/boot_id"))
	if err != nil {
		return fmt.Errorf("read the node's boot id: %w", err)
	}
	object, err := client.CoreV1().Nodes().Get(ctx, c.nodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if object.Status.NodeInfo.BootID != strings.TrimSpace(string(boot)) {
		return errors.New("the kubelet has not reported yet")
	}
	for _, condition := range object.Status.Conditions {
		switch {
		case condition.Type != corev1.NodeReady:
		case condition.Status == corev1.ConditionTrue:
			return nil
		default:
			return fmt.Errorf("the node is not Ready: %s", condition.Message)
		}
	}
	return errors.New("the kubelet has not said whether the node is Ready")
}
