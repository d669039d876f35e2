package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

const podName = "csi.storage.k8s.io/pod.name"

type provider struct {
	v1alpha1.UnimplementedCSIDriverProviderServer

	socket string
}

func (*provider) Version(context.Context, *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	return &v1alpha1.VersionResponse{Version: "v1alpha1", RuntimeName: "upstreamprovider", RuntimeVersion: "1.0.0"}, nil
}

// Mount answers with what it was sent, or as the parameters say.
func (p *provider) Mount(ctx context.Context, r *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	in, err := read(ctx, r)
	if err != nil {
		return nil, err
	}
	fmt.Println("mount", in.attributes[podName])
	if err := wait(ctx, in.attributes["delay"]); err != nil {
		return nil, err
	}
	in.raw["socket"] = p.socket
	switch answer := in.attributes["answer"]; answer {
	case "":
		return in.echo(), nil
	case "no files":
		return &v1alpha1.MountResponse{ObjectVersion: []*v1alpha1.ObjectVersion{{Id: "written", Version: "1"}}}, nil
	case "no objects":
		return &v1alpha1.MountResponse{}, nil
	case "error":
		return &v1alpha1.MountResponse{Error: &v1alpha1.Error{Code: in.attributes["code"]}}, nil
	case "status":
		return nil, in.failure()
	case "exit":
		os.Exit(1)
		return nil, nil
	default:
		return nil, fmt.Errorf("answer %q is not known", answer)
	}
}

// wait takes the time that a parameter asks for.
func wait(ctx context.Context, delay string) error {
	if delay == "" {
		return nil
	}
	duration, err := time.ParseDuration(delay)
	if err != nil {
		return fmt.Errorf("delay: %w", err)
	}
	select {
	case <-time.After(duration):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// request is a request, read as the providers of the clouds read it.
type request struct {
	attributes, secrets map[string]string
	mode                fs.FileMode
	// raw are the request's fields as they came.
	raw map[string]string
}

func read(ctx context.Context, r *v1alpha1.MountRequest) (*request, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	authority := md.Get(":authority")
	if len(authority) != 1 || authority[0] != "localhost" {
		return nil, fmt.Errorf("authority is %q, want localhost", authority)
	}
	in := &request{raw: map[string]string{
		"authority": authority[0], "attributes": r.GetAttributes(), "secrets": r.GetSecrets(),
		"permission": r.GetPermission(), "target_path": r.GetTargetPath(),
		"current_object_version": fmt.Sprint(len(r.GetCurrentObjectVersion())),
	}}
	if err := json.Unmarshal([]byte(r.GetAttributes()), &in.attributes); err != nil {
		return nil, fmt.Errorf("attributes: %w", err)
	}
	if err := json.Unmarshal([]byte(r.GetSecrets()), &in.secrets); err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	if err := json.Unmarshal([]byte(r.GetPermission()), &in.mode); err != nil {
		return nil, fmt.Errorf("permission: %w", err)
	}
	if !strings.HasPrefix(r.GetTargetPath(), "/") {
		return nil, fmt.Errorf("target path is %q", r.GetTargetPath())
	}
	return in, nil
}

// echo answers with what came.
func (in *request) echo() *v1alpha1.MountResponse {
	response := &v1alpha1.MountResponse{}
	add := func(path, contents string) {
		response.Files = append(response.Files, &v1alpha1.File{Path: path, Mode: int32(in.mode), Contents: []byte(contents)})
	}
	for _, name := range slices.Sorted(maps.Keys(in.attributes)) {
		response.ObjectVersion = append(response.ObjectVersion, &v1alpha1.ObjectVersion{Id: name, Version: "1"})
		add(strings.ReplaceAll(name, "/", "_"), in.attributes[name])
	}
	for _, name := range slices.Sorted(maps.Keys(in.secrets)) {
		add("secret_"+name, in.secrets[name])
	}
	for _, name := range slices.Sorted(maps.Keys(in.raw)) {
		add("request/"+name, in.raw[name])
	}
	if file := in.attributes["file"]; file != "" {
		add(file, "one more")
	}
	return response
}

// failure is the status that the parameters ask for.
func (in *request) failure() error {
	var code codes.Code
	if err := json.Unmarshal([]byte(`"`+in.attributes["code"]+`"`), &code); err != nil {
		return errors.New("code is none of gRPC's, such as NOT_FOUND")
	}
	return status.Error(code, in.attributes["message"])
}
