package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/postern-dev/postern/test/cluster/node"
)

// status prints how the components, the node and the pods are.
func status(ctx context.Context, c command) error {
	running, err := open(c.dir)
	if err != nil {
		return err
	}
	processes, err := node.ReadStatus(running.Dir())
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "COMPONENT\tPROCESS\tSTARTS\tLAST EXIT")
	for _, p := range processes {
		fmt.Fprintf(table, "%s\t%d\t%d\t%s\n", p.Name, p.PID, p.Starts, p.LastExit)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, what := range [][]string{{"nodes", "-o", "wide"}, {"pods", "--all-namespaces"}} {
		fmt.Println()
		cmd := running.Command(ctx, "kubectl", append([]string{"get"}, what...)...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return err
		}
	}
	return nil
}

// logs prints a log, or lists them. They can be read when nothing runs any more.
func logs(ctx context.Context, c command) error {
	flags := flag.NewFlagSet("postern-cluster logs", flag.ContinueOnError)
	follow := flags.Bool("f", false, "go on printing what is added")
	if err := flags.Parse(c.args); err != nil {
		return err
	}
	dir, err := filepath.Abs(node.LogDir(c.dir))
	if err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return listLogs(dir)
	}
	args := []string{"--lines", "+1"}
	if *follow {
		args = append(args, "--follow")
	}
	cmd := exec.CommandContext(ctx, "tail", append(args, filepath.Join(dir, flags.Arg(0)+".log"))...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

func listLogs(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("no logs in " + dir + " (postern-cluster up starts a cluster)")
	}
	for _, file := range files {
		fmt.Printf("%-26s %s\n", strings.TrimSuffix(filepath.Base(file), ".log"), file)
	}
	return nil
}
