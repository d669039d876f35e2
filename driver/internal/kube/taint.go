package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// wireNode is as much of a node of API v1 as a taint's removal needs. Taints
// are kept as they came: a field that is not known here must not get lost.
// https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/node-v1/
type wireNode struct {
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
	Spec struct {
		Taints []json.RawMessage `json:"taints"`
	} `json:"spec"`
}

// HasNodeTaint reports whether the node has a taint with this key.
func (c *Client) HasNodeTaint(ctx context.Context, node, key string) (bool, error) {
	read, err := c.node(ctx, node)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(read.Spec.Taints, hasKey(key)), nil
}

// RemoveNodeTaint takes all taints with this key from the node, if it has any.
// apierrors.IsConflict tells that the node was changed meanwhile: try again.
func (c *Client) RemoveNodeTaint(ctx context.Context, node, key string) error {
	read, err := c.node(ctx, node)
	if err != nil {
		return err
	}
	taints := slices.DeleteFunc(slices.Clone(read.Spec.Taints), hasKey(key))
	if len(taints) == len(read.Spec.Taints) {
		return nil
	}
	// With the version the API server refuses it if somebody else has written
	// since: a merge patch replaces the whole list.
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": read.Metadata.ResourceVersion},
		"spec":     map[string]any{"taints": taints},
	})
	if err != nil {
		return fmt.Errorf("encode the patch of node %s: %w", node, err)
	}
	err = c.core.Patch(types.MergePatchType).Resource("nodes").Name(node).Body(patch).Do(ctx).Error()
	return explain(fmt.Sprintf("patch node %s", node), err)
}

func (c *Client) node(ctx context.Context, name string) (*wireNode, error) {
	what := fmt.Sprintf("get node %s", name)
	body, err := c.core.Get().SetHeader("Accept", "application/json").Resource("nodes").Name(name).Do(ctx).Raw()
	if err != nil {
		return nil, explain(what, err)
	}
	node := &wireNode{}
	if err := json.Unmarshal(body, node); err != nil {
		return nil, fmt.Errorf("%s: decode the answer: %w", what, err)
	}
	return node, nil
}

func hasKey(key string) func(json.RawMessage) bool {
	return func(taint json.RawMessage) bool {
		var t struct {
			Key string `json:"key"`
		}
		return json.Unmarshal(taint, &t) == nil && t.Key == key
	}
}
