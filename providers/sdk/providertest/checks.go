package providertest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	v1alpha1 "github.com/postern-dev/postern/proto/gen/go/compat/v1alpha1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	"github.com/postern-dev/postern/providers/sdk"
)

// describe checks that Describe is complete, says what the definition says,
// and does not change.
func describe(ctx context.Context, s *suite) error {
	def := s.h.Definition()
	if err := def.Validate(); err != nil {
		return fmt.Errorf("definition: %w", err)
	}
	p, err := s.started(ctx)
	if err != nil {
		return err
	}
	first, err := p.provider.Describe(ctx, &providerv1.DescribeRequest{})
	if err != nil {
		return fmt.Errorf("describe: %w", err)
	}
	if first.GetVersion() == "" {
		return errors.New("describe: no version")
	}
	if !slices.Contains(first.GetNames(), def.Name) && len(def.Names) == 0 {
		return fmt.Errorf("describe: names %q do not hold %q", first.GetNames(), def.Name)
	}
	if err := s.stop(); err != nil {
		return err
	}
	if p, err = s.started(ctx); err != nil {
		return err
	}
	second, err := p.provider.Describe(ctx, &providerv1.DescribeRequest{})
	if err != nil {
		return fmt.Errorf("describe: %w", err)
	}
	if !proto.Equal(first, second) {
		return fmt.Errorf("describe differs after a restart: %v, then %v", first, second)
	}
	req := s.request(s.h.Valid)
	return errors.Join(declaredAudiences(first, req), declared(def, req))
}

// declaredAudiences checks that Describe declares the tokens that the valid request
// needs: a provider's flags may say more than its definition.
func declaredAudiences(described *providerv1.DescribeResponse, req *sdk.Request) error {
	var audiences []string
	for _, a := range described.GetAudiences() {
		audience := a.GetValue()
		if a.GetParameter() != "" {
			audience = req.Parameters.Get(a.GetParameter())
		}
		if audience == "" {
			audience = a.GetParameterDefault()
		}
		audiences = append(audiences, audience)
	}
	for _, t := range req.Tokens {
		if !slices.Contains(audiences, t.Audience) {
			return fmt.Errorf("the valid request has a token for %q, which the provider does not declare", t.Audience)
		}
	}
	return nil
}

// declared checks that the definition declares what else the valid request needs.
func declared(def sdk.Definition, req *sdk.Request) error {
	for name := range req.Parameters {
		if !slices.ContainsFunc(def.Parameters, func(p sdk.Parameter) bool { return p.Name == name }) {
			return fmt.Errorf("the valid request has the parameter %q, which the definition does not declare", name)
		}
	}
	for name := range req.Pod.ServiceAccount.Annotations {
		if !slices.Contains(def.ServiceAccountAnnotations, name) {
			return fmt.Errorf("the valid request has the annotation %q, which the definition does not declare", name)
		}
	}
	for name := range req.Node.Labels {
		if !slices.Contains(def.NodeLabels, name) {
			return fmt.Errorf("the valid request has the node label %q, which the definition does not declare", name)
		}
	}
	return nil
}

// fetchCase fetches a case and checks all that is known of its answer.
func (s *suite) fetchCase(ctx context.Context, c Case, req *sdk.Request) (*answer, error) {
	got, err := s.fetch(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	return got, checkAnswer(c, req, got)
}

func checkAnswer(c Case, req *sdk.Request, got *answer) error {
	var files []sdk.File
	for path, contents := range got.Contents {
		files = append(files, sdk.File{Path: path, Mode: got.Modes[path], Contents: sdk.NewSecret([]byte(contents))})
	}
	if err := sdk.ValidateFiles(files); err != nil {
		return err
	}
	for id, version := range got.Versions {
		if id == "" || version == "" {
			return fmt.Errorf("object %q has the version %q: both must be set", id, version)
		}
		for path, contents := range got.Contents {
			if len(contents) >= minContentCanary && strings.Contains(version, contents) {
				return fmt.Errorf("the version of object %q holds the content of %q", id, path)
			}
		}
	}
	if c.Contents != nil {
		// Contents are not shown: they may be a real store's.
		if diff := cmp.Diff(slices.Sorted(keys(c.Contents)), slices.Sorted(keys(got.Contents))); diff != "" {
			return fmt.Errorf("files differ (-want +got):\n%s", diff)
		}
		for path, want := range c.Contents {
			if got.Contents[path] != want {
				return fmt.Errorf("file %q has the wrong content (%d bytes, want %d)", path, len(got.Contents[path]), len(want))
			}
		}
	}
	for path, mode := range got.Modes {
		want, ok := c.Modes[path]
		if !ok {
			want = req.DefaultFileMode
		}
		if mode != want {
			return fmt.Errorf("file %q has the mode %#o, want %#o", path, uint32(mode), uint32(want))
		}
	}
	return nil
}

func fetchValid(ctx context.Context, s *suite) error {
	_, err := s.fetchCase(ctx, s.h.Valid, s.request(s.h.Valid))
	return err
}

// defaultMode checks that files without a mode of their own get the request's.
func defaultMode(ctx context.Context, s *suite) error {
	for _, mode := range []fs.FileMode{0o400, 0o640, 0o777} {
		req := s.request(s.h.Valid)
		req.DefaultFileMode = mode
		if _, err := s.fetchCase(ctx, s.h.Valid, req); err != nil {
			return fmt.Errorf("with default mode %#o: %w", uint32(mode), err)
		}
	}
	return nil
}

func explicitModes(ctx context.Context, s *suite) error {
	if s.h.Modes == nil {
		return skipf("the harness has no Modes")
	}
	req := s.request(*s.h.Modes)
	req.DefaultFileMode = 0o604 // nobody's explicit one
	_, err := s.fetchCase(ctx, *s.h.Modes, req)
	return err
}

// unknownParameters checks that a parameter of a later version, or a
// misspelled one, changes nothing.
func unknownParameters(ctx context.Context, s *suite) error {
	want, err := s.fetchCase(ctx, s.h.Valid, s.request(s.h.Valid))
	if err != nil {
		return err
	}
	req := s.request(s.h.Valid)
	req.Parameters["conformanceUnknown"] = "[{"
	got, err := s.fetchCase(ctx, s.h.Valid, req)
	if err != nil {
		return fmt.Errorf("with an unknown parameter: %w", err)
	}
	return same(want, got, "with an unknown parameter")
}

// same compares two answers, without showing contents.
func same(want, got *answer, when string) error {
	if diff := cmp.Diff(want.Versions, got.Versions); diff != "" {
		return fmt.Errorf("versions differ %s (-want +got):\n%s", when, diff)
	}
	if diff := cmp.Diff(want.Modes, got.Modes); diff != "" {
		return fmt.Errorf("files or modes differ %s (-want +got):\n%s", when, diff)
	}
	for path := range want.Contents {
		if want.Contents[path] != got.Contents[path] {
			return fmt.Errorf("file %q differs %s", path, when)
		}
	}
	return nil
}

// stableVersions checks that the same content has the same versions, twice in
// a row and after a restart.
func stableVersions(ctx context.Context, s *suite) error {
	want, err := s.fetchCase(ctx, s.h.Valid, s.request(s.h.Valid))
	if err != nil {
		return err
	}
	got, err := s.fetchCase(ctx, s.h.Valid, s.request(s.h.Valid))
	if err != nil {
		return err
	}
	if err := same(want, got, "though nothing has changed"); err != nil {
		return err
	}
	if err := s.stop(); err != nil {
		return err
	}
	if got, err = s.fetchCase(ctx, s.h.Valid, s.request(s.h.Valid)); err != nil {
		return err
	}
	return same(want, got, "after a restart of the provider")
}

// changedVersions checks that another content has another version, and that
// no version changes alone.
func changedVersions(ctx context.Context, s *suite) error {
	before, err := s.fetchCase(ctx, s.h.Valid, s.request(s.h.Valid))
	if err != nil {
		return err
	}
	if err := s.h.Mutate(); err != nil {
		return fmt.Errorf("mutate: %w", err)
	}
	changed := s.h.Valid
	changed.Contents = nil
	after, err := s.fetchCase(ctx, changed, s.request(changed))
	if err != nil {
		return fmt.Errorf("after a change: %w", err)
	}
	if cmp.Equal(before.Contents, after.Contents) {
		return errors.New("the files are the same after a change in the store")
	}
	if cmp.Equal(before.Versions, after.Versions) {
		return errors.New("the versions are the same, though contents have changed")
	}
	return nil
}

// concurrentPods checks that fetches at once do not mix up.
func concurrentPods(ctx context.Context, s *suite) error {
	pods := s.h.Pods
	if pods == nil {
		pods = []Case{s.h.Valid}
	}
	const each = 8
	var (
		wg     sync.WaitGroup
		errs   = make([]error, len(pods)*each)
		volume = func(i int) string { return fmt.Sprintf("csi-conformance-volume-%d", i) }
	)
	for i := range errs {
		c := pods[i%len(pods)]
		req := s.request(c)
		req.VolumeID = volume(i)
		wg.Go(func() { _, errs[i] = s.fetchCase(ctx, c, req) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// release checks that Release may come for any volume at any time.
func release(ctx context.Context, s *suite) error {
	p, err := s.started(ctx)
	if err != nil {
		return err
	}
	req := s.request(s.h.Valid)
	if _, err := s.fetchCase(ctx, s.h.Valid, req); err != nil {
		return err
	}
	for _, id := range []string{req.VolumeID, req.VolumeID, "csi-conformance-unknown-volume"} {
		if _, err := p.provider.Release(ctx, &providerv1.ReleaseRequest{VolumeId: id}); err != nil {
			s.noteText("an error of Release", errorText(err))
			return fmt.Errorf("release of %q: %w", id, err)
		}
	}
	if _, err := s.fetchCase(ctx, s.h.Valid, req); err != nil {
		return fmt.Errorf("after a release: %w", err)
	}
	_, err = p.provider.Release(ctx, &providerv1.ReleaseRequest{})
	return checkError(err, ErrorCase{Reason: sdk.ReasonInvalidParameters, Field: "volume_id"})
}

// upstream checks that v1alpha1 gives what provider.v1 gives, wherever
// kubelet's tokens are.
func upstream(ctx context.Context, s *suite) error {
	p, err := s.started(ctx)
	if err != nil {
		return err
	}
	described, err := p.provider.Describe(ctx, &providerv1.DescribeRequest{})
	if err != nil {
		return fmt.Errorf("describe: %w", err)
	}
	version, err := p.upstream.Version(ctx, &v1alpha1.VersionRequest{Version: "v1alpha1"})
	if err != nil {
		return fmt.Errorf("version: %w", err)
	}
	want := &v1alpha1.VersionResponse{
		Version: "v1alpha1", RuntimeName: s.h.Definition().Name, RuntimeVersion: described.GetVersion(),
	}
	if !proto.Equal(want, version) {
		return fmt.Errorf("version is %v, want %v", version, want)
	}
	if s.h.WithoutV1alpha1 != "" {
		return skipf("%s", s.h.WithoutV1alpha1)
	}
	req := s.request(s.h.Valid)
	fetched, err := s.fetchCase(ctx, s.h.Valid, req)
	if err != nil {
		return err
	}
	for _, tokensInSecrets := range []bool{false, true} {
		in, err := mountRequest(req, tokensInSecrets)
		if err != nil {
			return err
		}
		got, err := s.mount(ctx, in)
		if err != nil {
			return fmt.Errorf("mount, tokens in secrets %t: %w", tokensInSecrets, err)
		}
		if err := same(fetched, got, "between the protocols"); err != nil {
			return err
		}
	}
	return nil
}
