// Package check says what a release would tag and publish, and what of it does
// not fit together.
package check

import (
	"context"
	"fmt"
	"slices"

	"github.com/postern-dev/postern/release/internal/git"
	"github.com/postern-dev/postern/release/internal/versions"
)

// Config says what to check.
type Config struct {
	// Root of the source tree, a git repository. Required.
	Root string
	// Repository is what the images' names begin with. Required.
	Repository string
}

// Report is what a release would be.
type Report struct {
	Sets []Set
	// Problems that have to be solved before.
	Problems []string
}

// Set is what is released together.
type Set struct {
	Name, Version string
	// Tags of the version.
	Tags []Tag
	// Last is the tag of the last release, "" before the first.
	Last string
	// Changed files since then, or all.
	Changed []string
	// Modules with their versions, images with their tags, charts.
	Modules, Images []string
	Charts          []Chart
}

// Tag is a git tag of a version.
type Tag struct {
	Name string
	// Commit that it is on; "" if it is not there yet.
	Commit string
}

// Released tells whether the version is tagged.
func (s Set) Released() bool { return s.Tags[0].Commit != "" }

// tree is what is looked at.
type tree struct {
	cfg        Config
	file       *versions.File
	repository *git.Repository
	modules    []module
	charts     []Chart
	daemons    []versions.Daemon
}

// Run looks at the tree.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	file, err := versions.Read(cfg.Root)
	if err != nil {
		return nil, err
	}
	repository, err := git.Open(ctx, cfg.Root)
	if err != nil {
		return nil, err
	}
	t := tree{cfg: cfg, file: file, repository: repository}
	if t.modules, err = findModules(cfg.Root); err != nil {
		return nil, err
	}
	if t.charts, err = findCharts(cfg.Root); err != nil {
		return nil, err
	}
	if t.daemons, err = file.Daemons(cfg.Root); err != nil {
		return nil, err
	}
	report := &Report{}
	for _, s := range file.Sets {
		set, err := t.set(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("set %s: %w", s.Name, err)
		}
		report.Sets = append(report.Sets, set)
		report.Problems = append(report.Problems, set.problems()...)
	}
	uids, err := t.uidProblems()
	if err != nil {
		return nil, err
	}
	report.Problems = append(report.Problems,
		slices.Concat(t.moduleProblems(), t.requireProblems(), t.imageProblems(), t.chartProblems(), uids)...)
	return report, nil
}

// set says what a release of a set would be.
func (t *tree) set(ctx context.Context, s *versions.Set) (Set, error) {
	report := Set{Name: s.Name, Version: s.Version}
	for _, name := range s.Tags(s.Version) {
		commit, err := t.repository.Tagged(ctx, name)
		if err != nil {
			return Set{}, err
		}
		report.Tags = append(report.Tags, Tag{Name: name, Commit: commit})
	}
	var err error
	if report.Last, err = s.LastTag(ctx, t.repository); err != nil {
		return Set{}, err
	}
	if report.Changed, err = t.repository.ChangedSince(ctx, report.Last, s.Dirs()); err != nil {
		return Set{}, err
	}
	for _, dir := range s.Modules {
		report.Modules = append(report.Modules, versions.ModulePrefix+dir+" "+s.Version)
	}
	for _, daemon := range t.daemons {
		if daemon.Set == s {
			report.Images = append(report.Images, t.cfg.Repository+"/"+daemon.Name+":"+s.Version)
		}
	}
	for _, chart := range t.charts {
		if slices.Contains(s.Charts, chart.Top) {
			report.Charts = append(report.Charts, chart)
		}
	}
	return report, nil
}

// problems finds a release that was left half-way.
func (s Set) problems() []string {
	var problems []string
	first := s.Tags[0]
	for _, tag := range s.Tags[1:] {
		if tag.Commit != first.Commit {
			problems = append(problems, fmt.Sprintf("tags of one release are not on one commit: %s is on %s, %s on %s",
				first.Name, orNone(first.Commit), tag.Name, orNone(tag.Commit)))
		}
	}
	return problems
}

func orNone(commit string) string {
	if commit == "" {
		return "none"
	}
	return commit
}
