// Command tables runs every command of a document of benchmarks, one after the other, so that
// all its tables are measured anew. It shows what they write, and keeps it by section in
// bin/benchmarks, with the load of the machine before each.
//
//	go run ./test/bench/cmd/tables docs/benchmarks.md [WORD]
//
// With a WORD, only commands that have it are run.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const results = "bin/benchmarks"

func main() {
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "usage: tables DOCUMENT [WORD]")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	word := ""
	if len(os.Args) == 3 {
		word = os.Args[2]
	}
	if err := run(ctx, os.Args[1], word); err != nil {
		fmt.Fprintln(os.Stderr, "tables:", err)
		os.Exit(1)
	}
}

// run goes on after a command that fails, and says so at the end.
func run(ctx context.Context, document, word string) error {
	text, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(results, 0o755); err != nil {
		return err
	}
	var failed []error
	for i, c := range commands(string(text)) {
		if !strings.Contains(c.text, word) {
			continue
		}
		if err := measure(ctx, i+1, c); err != nil {
			failed = append(failed, fmt.Errorf("%s: %s: %w", c.section, c.text, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}

func measure(ctx context.Context, n int, c command) error {
	name := fmt.Sprintf("%02d-%s.txt", n, strings.ToLower(notInNames.ReplaceAllString(c.section, "-")))
	file, err := os.Create(filepath.Join(results, name))
	if err != nil {
		return err
	}
	defer file.Close()
	out := io.MultiWriter(os.Stdout, file)
	load, _ := os.ReadFile("/proc/loadavg") // where there is one
	fmt.Fprintf(out, "\n## %s\n# %s, load average %s\n$ %s\n", c.section, time.Now().UTC().Format(time.RFC3339), strings.TrimSpace(string(load)), c.text)
	cmd := exec.CommandContext(ctx, "sh", "-c", c.text)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return errors.Join(cmd.Run(), file.Close())
}

// A command measures what stands in a section of a document.
type command struct{ section, text string }

var (
	notInNames = regexp.MustCompile(`[^A-Za-z0-9]+`)
	inText     = regexp.MustCompile("`(go test [^`]+)`")
)

// commands are those of a document in Markdown, in its order, each once: the lines of blocks
// that are for a shell, and what stands as code in the text and begins with go test.
func commands(document string) (all []command) {
	section, block := "", ""
	seen := map[string]bool{}
	add := func(text string) {
		if text = strings.Join(strings.Fields(text), " "); text != "" && !seen[text] {
			seen[text] = true
			all = append(all, command{section, text})
		}
	}
	var paragraph strings.Builder
	flush := func() {
		for _, found := range inText.FindAllStringSubmatch(paragraph.String(), -1) {
			add(found[1])
		}
		paragraph.Reset()
	}
	for line := range strings.Lines(document) {
		trimmed := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(trimmed, "```") && block == "":
			flush()
			block = trimmed
		case strings.HasPrefix(trimmed, "```"):
			block = ""
		case block == "```sh":
			add(trimmed)
		case block != "":
		case strings.HasPrefix(trimmed, "## "):
			flush()
			section = strings.TrimPrefix(trimmed, "## ")
		default:
			if trimmed == "" {
				flush()
			}
			paragraph.WriteString(line)
		}
	}
	flush()
	return all
}
