package kube

import (
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// labelsMaxAge is how long a node's labels are kept. Region, zone and
	// instance type do not change while the node lives.
	labelsMaxAge = 10 * time.Minute
	// missingLabelMaxAge is how long it is believed that a label is not there:
	// on a new node, the cloud's controller adds them after the first pods.
	missingLabelMaxAge = 5 * time.Second
)

// nodeLabels keeps the labels of the node that was asked for last, which is
// always the driver's own.
type nodeLabels struct {
	flights flights[*metav1.PartialObjectMetadata]

	mu     sync.Mutex
	name   string
	labels map[string]string // never changed once set
	read   time.Time
}

// NodeLabels returns those labels of the node that keys name; keys that it
// does not have are left out. They are kept for ten minutes.
func (c *Client) NodeLabels(ctx context.Context, name string, keys []string) (map[string]string, error) {
	if len(keys) == 0 {
		return map[string]string{}, nil
	}
	if labels, ok := c.labels.kept(name, keys); ok {
		return labels, nil
	}
	node, err := c.labels.flights.do(ctx, name, func(ctx context.Context) (*metav1.PartialObjectMetadata, error) {
		return c.metadata(ctx, "nodes", "", name)
	})
	if err != nil {
		return nil, explain(fmt.Sprintf("get node %s", name), err)
	}
	c.labels.keep(name, node.Labels)
	return pick(node.Labels, keys), nil
}

func (n *nodeLabels) kept(name string, keys []string) (map[string]string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	age := time.Since(n.read)
	if n.name != name || age >= labelsMaxAge {
		return nil, false
	}
	picked := pick(n.labels, keys)
	if len(picked) < len(keys) && age >= missingLabelMaxAge {
		return nil, false
	}
	return picked, true
}

func (n *nodeLabels) keep(name string, labels map[string]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.name, n.labels, n.read = name, labels, time.Now()
}
