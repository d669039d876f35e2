package rules

import (
	"reflect"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"

	"github.com/postern-dev/postern/gateway/internal/policy/objects"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
)

// The variables of an expression.
const (
	variablePod                 = "pod"
	variableServiceAccount      = "serviceAccount"
	variableProvider            = "provider"
	variableSecretProviderClass = "secretProviderClass"
	variableParameters          = "parameters"
	variableObjects             = "objects"
	variableNode                = "node"
)

// The types of variables that have fields. CEL knows the fields by their tags,
// and refuses an expression that asks for another.
type (
	// Pod is who wants the volume.
	Pod struct {
		Namespace string `cel:"namespace"`
		Name      string `cel:"name"`
		UID       string `cel:"uid"`
	}
	// ServiceAccount is the pod's.
	ServiceAccount struct {
		Name string `cel:"name"`
		// Annotations are those that the provider asks for.
		Annotations map[string]string `cel:"annotations"`
	}
	// SecretProviderClass is what the volume is made of.
	SecretProviderClass struct {
		Name string `cel:"name"`
	}
	// Node is where the pod runs.
	Node struct {
		Name   string            `cel:"name"`
		Labels map[string]string `cel:"labels"`
	}
)

// variables declares them.
func variables() []cel.EnvOption {
	class := func(name string) *cel.Type { return cel.ObjectType("rules." + name) }
	return []cel.EnvOption{
		ext.NativeTypes(
			ext.ParseStructTags(true),
			reflect.TypeFor[Pod](), reflect.TypeFor[ServiceAccount](), reflect.TypeFor[SecretProviderClass](), reflect.TypeFor[Node](),
		),
		cel.Variable(variablePod, class("Pod")),
		cel.Variable(variableServiceAccount, class("ServiceAccount")),
		cel.Variable(variableProvider, cel.StringType),
		cel.Variable(variableSecretProviderClass, class("SecretProviderClass")),
		cel.Variable(variableParameters, cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable(variableObjects, cel.ListType(cel.MapType(cel.StringType, cel.DynType))),
		cel.Variable(variableNode, class("Node")),
	}
}

// input is what the expressions see of one fetch. It is for one goroutine.
type input struct {
	pod            *Pod
	serviceAccount *ServiceAccount
	class          *SecretProviderClass
	node           *Node
	provider       string
	parameters     map[string]string
	// size is that of all parameters.
	size int
	// cost is what was spent on expressions so far.
	cost uint64
	// objects are parsed when the first expression asks for them.
	objects ref.Val
}

var _ cel.Activation = (*input)(nil)

func newInput(req *gatewayv1.FetchRequest) *input {
	pod, account, node := req.GetPod(), req.GetPod().GetServiceAccount(), req.GetNode()
	in := &input{
		pod:            &Pod{Namespace: pod.GetNamespace(), Name: pod.GetName(), UID: pod.GetUid()},
		serviceAccount: &ServiceAccount{Name: account.GetName(), Annotations: account.GetAnnotations()},
		class:          &SecretProviderClass{Name: req.GetSecretProviderClass()},
		node:           &Node{Name: node.GetName(), Labels: node.GetLabels()},
		provider:       req.GetProvider(),
		parameters:     req.GetParameters(),
	}
	for name, value := range in.parameters {
		in.size += len(name) + len(value)
	}
	return in
}

// Parent implements cel.Activation.
func (*input) Parent() cel.Activation { return nil }

// ResolveName implements cel.Activation.
func (in *input) ResolveName(name string) (any, bool) {
	switch name {
	case variablePod:
		return in.pod, true
	case variableServiceAccount:
		return in.serviceAccount, true
	case variableProvider:
		return in.provider, true
	case variableSecretProviderClass:
		return in.class, true
	case variableParameters:
		return in.parameters, true
	case variableNode:
		return in.node, true
	case variableObjects:
		if in.objects == nil {
			in.objects = objects.Parse(in.parameters)
		}
		return in.objects, true
	default:
		return nil, false
	}
}
