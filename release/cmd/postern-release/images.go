package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/postern-dev/postern/release/daemons"
	"github.com/postern-dev/postern/release/internal/check"
	"github.com/postern-dev/postern/release/internal/push"
)

// options are the flags that building and pushing share.
type options struct {
	root, output, platforms, repository, version string
}

// flags makes a command's flags; about is what its help begins with.
func (o *options) flags(env environment, command, about string) *flag.FlagSet {
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	flags.SetOutput(env.stderr)
	flags.Usage = func() {
		fmt.Fprintf(env.stderr, "Usage: postern-release %s\n\nFlags:\n", about)
		flags.PrintDefaults()
	}
	flags.StringVar(&o.root, "root", "", "the source tree's `directory`; default: where this runs, or above")
	return flags
}

func (o *options) imageFlags(flags *flag.FlagSet) {
	flags.StringVar(&o.output, "output", "", "`directory` of the tar files; default: dist/images in the source tree")
	flags.StringVar(&o.platforms, "platform", strings.Join(daemons.Platforms(), ","), "`os/architecture` to build for; several with commas")
	flags.StringVar(&o.version, "version", "", "`version` of the images; default: the tag that is checked out, or else a development version")
}

// parse parses the command's arguments and finds the tree.
func (o *options) parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.root == "" {
		root, err := findRoot()
		if err != nil {
			return err
		}
		o.root = root
	}
	if o.output == "" {
		o.output = filepath.Join(o.root, "dist", "images")
	}
	return nil
}

// builder returns a builder for the images of these names.
func (o *options) builder(env environment, names []string) (*daemons.Builder, error) {
	var created time.Time
	if epoch := env.getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("SOURCE_DATE_EPOCH %q: want seconds since 1970", epoch)
		}
		created = time.Unix(seconds, 0)
	}
	return daemons.New(daemons.Config{
		Root: o.root, Dir: o.output, Names: names, Platforms: strings.Split(o.platforms, ","),
		Repository: o.repository, Version: o.version, Time: created, Progress: env.stderr,
	})
}

const aboutImages = `images [flags] [image...]

Builds all images, or those that are named, such as postern-driver. Each becomes
an OCI layout in <output>/<image>-<version>.tar. The same commit and the same Go
give the same digests. Prints each file, its name and its digest.`

func runImages(ctx context.Context, env environment) error {
	var o options
	flags := o.flags(env, "images", aboutImages)
	o.imageFlags(flags)
	flags.StringVar(&o.repository, "repository", daemons.Repository, "`prefix` of the images' names")
	if err := o.parse(flags, env.args); err != nil {
		return err
	}
	builder, err := o.builder(env, flags.Args())
	if err != nil {
		return err
	}
	built, err := builder.Build(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	for _, image := range built {
		info, err := os.Stat(image.Tarball)
		if err != nil {
			return err
		}
		fmt.Fprintf(table, "%s\t%.1f MB\t%s\t%s\n", image.Tarball, float64(info.Size())/1e6, image.Reference, image.Digest)
	}
	return table.Flush()
}

const aboutPush = `push --repository <prefix> [flags] [image...]

Builds all images, or those that are named, and pushes them to a registry with
the credentials of "docker login", "podman login" or a credential helper. Prints
each image's name with its digest, to put into the chart's values.`

func runPush(ctx context.Context, env environment) error {
	var o options
	flags := o.flags(env, "push", aboutPush)
	o.imageFlags(flags)
	flags.StringVar(&o.repository, "repository", "", "`prefix` of the images' names, such as registry.example.com/postern (required)")
	noBuild := flags.Bool("no-build", false, "push the tar files that \"images\" made")
	overwrite := flags.Bool("overwrite", false, "let a tag that exists name another image from now on")
	if err := o.parse(flags, env.args); err != nil {
		return err
	}
	if o.repository == "" {
		return errors.New("--repository is required: the prefix to push below, such as registry.example.com/postern")
	}
	builder, err := o.builder(env, flags.Args())
	if err != nil {
		return err
	}
	list := builder.Build
	if *noBuild {
		list = builder.Built
	}
	images, err := list(ctx)
	if err != nil {
		return err
	}
	pusher := push.Pusher{Keychain: authn.DefaultKeychain, Overwrite: *overwrite}
	for _, image := range images {
		result, err := pusher.Push(ctx, image.Tarball, image.Reference)
		if err != nil {
			return err
		}
		done := "pushed"
		if result.Present {
			done = "there already"
		}
		fmt.Fprintf(env.stderr, "push: %s: %s\n", image.Reference, done)
		fmt.Fprintln(env.stdout, result.Reference)
	}
	return nil
}

const aboutCheck = `check [flags]

Says for each set of versions.yaml what a release would tag and publish, and what
changed since the last one. Fails if a module or chart is in no set or in two, if
somebody requires another version than is released, if a chart names another
version or uid than the image has, or if a release was left half-way.`

func runCheck(ctx context.Context, env environment) error {
	var o options
	flags := o.flags(env, "check", aboutCheck)
	flags.StringVar(&o.repository, "repository", daemons.Repository, "`prefix` of the images' names")
	if err := o.parse(flags, env.args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("check takes no arguments, but was given %q", flags.Args())
	}
	report, err := check.Run(ctx, check.Config{Root: o.root, Repository: o.repository})
	if err != nil {
		return err
	}
	if err := report.Write(env.stdout); err != nil {
		return err
	}
	if len(report.Problems) > 0 {
		return fmt.Errorf("the versions do not fit together: %d problems; see above", len(report.Problems))
	}
	return nil
}
