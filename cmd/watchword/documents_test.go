package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/doctor"
)

// top is the directory of the repository.
const top = "../.."

// documents returns the texts of all documents but the changelog, which has commands of the past, by
// their paths.
func documents(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != top && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case entry.IsDir() || filepath.Ext(path) != ".md" || entry.Name() == "CHANGELOG.md":
			return nil
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(top, path)
		texts[filepath.ToSlash(name)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// Every "watchword …" in every document is a command that there is, with flags and as many arguments as
// it takes.
func TestCommandsOfDocuments(t *testing.T) {
	var tried int
	for name, text := range documents(t) {
		for _, line := range commandLines(text) {
			tried++
			if err := understand(line.words, line.whole); err != nil {
				t.Errorf("%s: %s: %v", name, strings.Join(line.words, " "), err)
			}
		}
	}
	if tried < 150 {
		t.Errorf("only %d commands were found: the test reads too little", tried)
	}
}

// The test above refuses what is wrong and takes what is right.
func TestUnderstand(t *testing.T) {
	for text, right := range map[string]bool{
		"`watchword keys list`":                                         true,
		"`watchword keys revoke`":                                       true, // a name of a command, without its arguments
		"`watchword keys list|rotate`":                                  true,
		"`watchword keys\nlist`":                                        true,
		"`watchword backup --passphrse FILE`":                           false,
		"`watchword doctr`":                                             false,
		"`watchword keys lists`":                                        false,
		"```sh\nwatchword keys revoke\n```":                             false, // the KID is missing
		"```sh\nwatchword keys revoke --reason 'a b' -- \"$KID\"\n```":  true,
		"```sh\nA=b bin/watchword user add NAME --admin < p | cat\n```": true,
		"```\n$ watchword user add \\\n  NAME --root\n```":              false,
		"```sh\nwatchword restore a b && true\n```":                     false,
		"```yaml\n# watchword nothing\n```":                             true, // a comment
		"`watchword: the audit trail is not what was sealed`":           true, // no command
	} {
		var err error
		for _, line := range commandLines(text) {
			err = understand(line.words, line.whole)
		}
		if right != (err == nil) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A commandLine is a call of the command in a document: the words after its name. It is whole in a block
// of code; in a sentence it may be the mere name of a command.
type commandLine struct {
	words []string
	whole bool
}

var (
	codeBlock = regexp.MustCompile("(?ms)^[ \t]*```[^\n]*\n(.*?)^[ \t]*```")
	codeSpan  = regexp.MustCompile("`([^`]+)`")
)

func commandLines(text string) (found []commandLine) {
	for _, block := range codeBlock.FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(strings.ReplaceAll(block[1], "\\\n", " ")) {
			for _, words := range callsIn(strings.TrimPrefix(strings.TrimSpace(line), "$ ")) {
				found = append(found, commandLine{words, true})
			}
		}
	}
	for _, span := range codeSpan.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
		for _, words := range callsIn(strings.Join(strings.Fields(span[1]), " ")) {
			found = append(found, commandLine{words, false})
		}
	}
	return found
}

// shellWord is a word as far as documents need the language of the shell, or an operator between commands.
var shellWord = regexp.MustCompile(`\|\||&&|\$\([^)]*\)|[|;&]|[<>]+ *[^ ]+|#.*|(?:"[^"]*"|'[^']*'|\$\([^)]*\)|[^\s|;&<>"'])+`)

// callsIn returns the calls in a line of the shell: what follows a word that is the command's name or path,
// after variables and other commands that run it, up to the next operator.
func callsIn(line string) (calls [][]string) {
	called, begins := false, true
	for _, word := range shellWord.FindAllString(line, -1) {
		switch {
		case strings.HasPrefix(word, "#"):
			return calls
		case strings.Trim(word, "|;&") == "":
			called, begins = false, true
		case strings.ContainsAny(word[:1], "<>"): // a redirection is no argument
		case called:
			last := &calls[len(calls)-1]
			*last = append(*last, strings.Trim(word, `"'`))
		case begins && strings.Contains(word, "=") && !strings.HasPrefix(word, "-"): // a variable
		case begins && slices.Contains([]string{"watchword", "bin/watchword", "/watchword"}, word):
			calls, called = append(calls, nil), true
		default:
			begins = word == "exec" || word == "sudo" || word == "--"
		}
	}
	return calls
}

// understand says what is wrong with the words. Where they are not whole, arguments may be missing, "…" stands
// for others, and several names of commands may stand side by side.
func understand(words []string, whole bool) error {
	words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "…" })
	for i, word := range words {
		words[i] = strings.Trim(word, "[]")
		if names := strings.Split(word, "|"); !whole && len(names) > 1 {
			words[i] = names[0]
		}
	}
	root := newRoot()
	cmd, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	args := cmd.Flags().Args()
	if cmd.HasSubCommands() && len(args) > 0 {
		return fmt.Errorf("%q has no command %q", cmd.CommandPath(), args[0])
	}
	if !whole && len(args) == 0 || cmd.Flags().Changed("help") {
		return nil
	}
	return cmd.ValidateArgs(args)
}

// The checks that documents of the deployment name are checks of the doctor, and its checklist has each
// of those that find errors.
func TestChecksOfDocuments(t *testing.T) {
	known := map[string]doctor.Severity{}
	for _, c := range doctor.Checks() {
		known[c.ID] = c.Severity
	}
	id := regexp.MustCompile("`([a-z]+(?:-[a-z]+)+)`")
	option := regexp.MustCompile(`--check[ =]([a-z,-]+)`)
	for name, text := range documents(t) {
		if !strings.HasPrefix(name, "docs/deployment/") {
			continue
		}
		for _, list := range option.FindAllStringSubmatch(text, -1) {
			for one := range strings.SplitSeq(list[1], ",") {
				if _, ok := known[one]; !ok {
					t.Errorf("%s: --check %s: there is no such check", name, one)
				}
			}
		}
		lists := itemsOf(text, "Doctor")
		if name == "docs/deployment/checklist.md" {
			lists = text
		}
		for _, found := range id.FindAllStringSubmatch(lists, -1) {
			if _, ok := known[found[1]]; !ok {
				t.Errorf("%s: there is no check %s", name, found[1])
			}
		}
	}
	checklist := documents(t)["docs/deployment/checklist.md"]
	for check, severity := range known {
		if severity == doctor.Error && !strings.Contains(checklist, "`"+check+"`") {
			t.Errorf("the checklist lacks %s, which finds errors", check)
		}
	}
}

// Each runbook has its parts, the entries of logs that it names are in the code, and so are the sections to which
// its table of alerts leads.
func TestRunbooks(t *testing.T) {
	text := documents(t)["docs/deployment/runbooks.md"]
	before, rest, _ := strings.Cut(text, "\n## ")
	sections := map[string]bool{}
	for section := range strings.SplitSeq(rest, "\n## ") {
		title, body, _ := strings.Cut(section, "\n")
		sections[strings.ReplaceAll(strings.ToLower(title), " ", "-")] = true
		for _, part := range []string{"**Users see**", "**How to see it**", "\n- Metric:", "\n- Log:", "\n- Doctor:", "**What to do**", "**It is over when**"} {
			if !strings.Contains(body, part) && !strings.Contains(body, strings.TrimSuffix(part, "**")+".**") {
				t.Errorf("%s: there is no %s", title, part)
			}
		}
	}
	for _, link := range regexp.MustCompile(`\]\(#([a-z-]+)\)`).FindAllStringSubmatch(text, -1) {
		if !sections[link[1]] {
			t.Errorf("there is no section %s", link[1])
		}
	}
	for section := range sections {
		if !strings.Contains(before, "](#"+section+")") {
			t.Errorf("no alert leads to %s", section)
		}
	}
	code := sources(t)
	entry := regexp.MustCompile("`([^`]+)`")
	for _, said := range entry.FindAllStringSubmatch(itemsOf(text, "Log"), -1) {
		said := strings.Join(strings.Fields(said[1]), " ")
		if strings.Contains(said, " ") && !strings.Contains(code, said) && said != "too many open files" { // which the kernel says
			t.Errorf("no code logs %q", said)
		}
	}
}

// itemsOf returns the items "- NAME: …" of the lists in a document, one after the other.
func itemsOf(text, name string) string {
	return strings.Join(regexp.MustCompile(`(?m)^- `+name+`:.*\n(?:  .*\n)*`).FindAllString(text, -1), "")
}

// sources is the code, without its tests.
func sources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(filepath.Join(top, "internal"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
