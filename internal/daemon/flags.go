package daemon

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// envPrefix begins the environment variable of every flag.
const envPrefix = "POSTERN_"

// defaultGroup is where flags are before the first call of Group.
const defaultGroup = "General"

// Flags are the flags of a process. Each can also be set by an environment
// variable, POSTERN_ and the flag's name in upper case with underscores; the
// command line wins over the environment, and the environment over the default.
// An empty variable counts as not set. Both -x and --x are accepted. A flag of one
// letter is for people at a terminal, and has no variable.
//
// Commands are what a process does instead of its own work when its arguments
// begin with their names; each has flags of its own. See [Env.Command].
//
// Defining a flag twice panics, as in package flag: it is a defect that shows
// at once, whatever the input.
type Flags struct {
	name, summary string
	set           *flag.FlagSet
	group         string
	groups        map[string]string // by flag
	order         []string          // of groups
	commands      []command
	version       bool
}

// command is a line of the help.
type command struct{ name, summary string }

// FlagDoc describes a flag for the documentation.
type FlagDoc struct {
	// Name is without dashes.
	Name string
	// Env is the environment variable; "" if it has none.
	Env string
	// Group is the heading it is listed under.
	Group string
	// Type is a word for the value, such as duration; "" for a switch.
	Type string
	// Default is the value if nothing is given, in the flag's own syntax.
	Default string
	// Usage is what the flag does.
	Usage string
}

// NewFlags returns the flags --help and --version of a program. The summary is
// one sentence.
func NewFlags(name, summary string) *Flags {
	f := &Flags{
		name:    name,
		summary: summary,
		set:     flag.NewFlagSet(name, flag.ContinueOnError),
		groups:  make(map[string]string),
	}
	f.set.SetOutput(io.Discard) // errors and help are ours to print
	f.set.BoolVar(&f.version, "version", false, "print what this is built from, and exit")
	return f
}

// Group begins a group of flags: those that are defined from here on are listed
// under title in the help.
func (f *Flags) Group(title string) { f.group = title }

// Command adds a command to the help. The name is a word or more; the summary is
// a phrase for it.
func (f *Flags) Command(name, summary string) {
	f.commands = append(f.commands, command{name: name, summary: summary})
}

// String defines a flag. A word in `backquotes` in usage names the value in the
// help, for this and all other types.
func (f *Flags) String(p *string, name, value, usage string) {
	f.set.StringVar(p, name, value, usage)
	f.place(name)
}

// Bool defines a switch.
func (f *Flags) Bool(p *bool, name string, value bool, usage string) {
	f.set.BoolVar(p, name, value, usage)
	f.place(name)
}

// Int defines a flag for a whole number.
func (f *Flags) Int(p *int, name string, value int, usage string) {
	f.set.IntVar(p, name, value, usage)
	f.place(name)
}

// Float defines a flag for a number.
func (f *Flags) Float(p *float64, name string, value float64, usage string) {
	f.set.Float64Var(p, name, value, usage)
	f.place(name)
}

// Duration defines a flag for a time.Duration such as 90s.
func (f *Flags) Duration(p *time.Duration, name string, value time.Duration, usage string) {
	f.set.DurationVar(p, name, value, usage)
	f.place(name)
}

// StringSlice defines a flag for several values, separated by commas or given
// by repeating the flag. What is given replaces the default.
func (f *Flags) StringSlice(p *[]string, name string, value []string, usage string) {
	*p = slices.Clone(value)
	f.set.Var(&sliceValue{p: p}, name, usage)
	f.place(name)
}

// Func defines a flag whose value parse checks and takes; value is the default
// as the help shows it.
func (f *Flags) Func(name, value, usage string, parse func(string) error) {
	f.set.Var(&funcValue{text: value, parse: parse}, name, usage)
	f.place(name)
}

func (f *Flags) place(name string) {
	group := f.group
	if group == "" {
		group = defaultGroup
	}
	f.groups[name] = group
	if !slices.Contains(f.order, group) {
		f.order = append(f.order, group)
	}
}

// Parse sets the flags from the environment and the arguments. It returns
// flag.ErrHelp after it has printed help or version to env.Stdout, and a
// *UsageError for all that is wrong with the input.
func (f *Flags) Parse(env Env) error {
	if err := f.set.Parse(env.Args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return f.print(env.Stdout, f.help())
		}
		return f.misused(err)
	}
	switch {
	case f.version:
		return f.print(env.Stdout, f.name+" "+BuildInfo().String()+"\n")
	case f.set.NArg() > 0:
		return f.misused(f.unexpected(f.set.Args()))
	}
	return f.fromEnv(env.Getenv)
}

func (f *Flags) misused(err error) error { return &UsageError{Err: err, Program: f.name} }

// unexpected says what is wrong with arguments that are no flags.
func (f *Flags) unexpected(args []string) error {
	if len(f.commands) == 0 {
		return fmt.Errorf("unexpected argument %q: only flags are accepted", args[0])
	}
	names := make([]string, len(f.commands))
	for i, c := range f.commands {
		if _, ok := (Env{Args: args}).Command(c.name); ok {
			return fmt.Errorf("%q comes first, before all flags", c.name)
		}
		names[i] = c.name
	}
	return fmt.Errorf("unexpected argument %q: there are flags, and the commands %s", args[0], strings.Join(names, ", "))
}

// fromEnv sets the flags that the command line did not.
func (f *Flags) fromEnv(getenv func(string) string) error {
	if getenv == nil {
		return nil
	}
	given := make(map[string]bool)
	f.set.Visit(func(fl *flag.Flag) { given[fl.Name] = true })
	var errs []error
	f.set.VisitAll(func(fl *flag.Flag) {
		name := envName(fl.Name)
		if name == "" || given[fl.Name] || f.groups[fl.Name] == "" {
			return
		}
		value := getenv(name)
		if value == "" {
			return
		}
		if err := f.set.Set(fl.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("invalid value %q for environment variable %s: %w", value, name, err))
		}
	})
	if len(errs) > 0 {
		return f.misused(errors.Join(errs...))
	}
	return nil
}

func (f *Flags) print(w io.Writer, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return flag.ErrHelp
}

// Docs returns the flags, by groups in their order, sorted by name in each.
func (f *Flags) Docs() []FlagDoc {
	var docs []FlagDoc
	for _, group := range f.order {
		f.set.VisitAll(func(fl *flag.Flag) { // sorted
			if f.groups[fl.Name] != group {
				return
			}
			kind, usage := flag.UnquoteUsage(fl)
			docs = append(docs, FlagDoc{
				Name: fl.Name, Env: envName(fl.Name), Group: group,
				Type: kind, Default: fl.DefValue, Usage: usage,
			})
		})
	}
	return docs
}

func (f *Flags) help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\nUsage: %s [flags]\n", f.name, f.summary, f.name)
	if len(f.commands) > 0 {
		fmt.Fprintf(&b, "       %s COMMAND [flags]\n\nCommands (COMMAND --help tells more):\n", f.name)
		for _, c := range f.commands {
			fmt.Fprintf(&b, "  %s\n        %s\n", c.name, c.summary)
		}
	}
	group := ""
	for _, d := range f.Docs() {
		if d.Group != group {
			group = d.Group
			fmt.Fprintf(&b, "\n%s:\n", group)
		}
		fmt.Fprintf(&b, "  %s\n        %s%s\n", d.head(), strings.ReplaceAll(d.Usage, "\n", "\n        "), d.tail())
	}
	b.WriteString("\nInformation:\n  --help\n        print this, and exit\n" +
		"  --version\n        print what this is built from, and exit\n")
	return b.String()
}

// head is how the flag is given.
func (d FlagDoc) head() string {
	head := "--" + d.Name
	if len(d.Name) == 1 {
		head = "-" + d.Name
	}
	if d.Type != "" {
		head += " " + d.Type
	}
	return head
}

// tail is what the flag is if it is not given, and what else it can be given by.
func (d FlagDoc) tail() string {
	var parts []string
	if d.Default != "" && d.Default != "false" {
		parts = append(parts, "default "+d.Default)
	}
	if d.Env != "" {
		parts = append(parts, d.Env)
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, "; ") + ")"
}

// envName returns the environment variable of a flag; "" if it has none.
func envName(flagName string) string {
	if len(flagName) == 1 {
		return ""
	}
	return envPrefix + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(flagName))
}

// sliceValue is a flag.Value for a list.
type sliceValue struct {
	p   *[]string
	set bool
}

// String implements flag.Value. Package flag also calls it on a zero value.
func (v *sliceValue) String() string {
	if v.p == nil {
		return ""
	}
	return strings.Join(*v.p, ",")
}

// Set implements flag.Value.
func (v *sliceValue) Set(s string) error {
	if !v.set {
		*v.p, v.set = nil, true
	}
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*v.p = append(*v.p, part)
		}
	}
	return nil
}

// funcValue is a flag.Value that hands its text on.
type funcValue struct {
	text  string
	parse func(string) error
}

// String implements flag.Value. Package flag also calls it on a zero value.
func (v *funcValue) String() string { return v.text }

// Set implements flag.Value.
func (v *funcValue) Set(s string) error {
	if err := v.parse(s); err != nil {
		return err
	}
	v.text = s
	return nil
}
