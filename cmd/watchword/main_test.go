package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/token"
)

// patience is how long a script waits for what must come: long, because the machine may
// be busy with something else.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	testscript.Main(scripts{m}, map[string]func(){"watchword": main})
}

// scripts runs the tests, eight of them at the same time: most wait for a process.
type scripts struct{ *testing.M }

func (s scripts) Run() int {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	return s.M.Run()
}

// TestScripts runs the scripts in testdata/script, each in a directory of its own
// and without the environment of who runs the tests.
func TestScripts(t *testing.T) { runScripts(t, "testdata/script", "") }

// TestClusterScripts runs those in testdata/cluster on PostgreSQL.
func TestClusterScripts(t *testing.T) { runScripts(t, "testdata/cluster", testenv.Postgres(t)) }

// TestRedisScripts runs those in testdata/redis on PostgreSQL and Redis.
func TestRedisScripts(t *testing.T) {
	runScripts(t, "testdata/redis", testenv.Postgres(t), "REDIS_URL="+testenv.Redis(t))
}

// TestOperatorScripts runs those in testdata/operator, which follow documents, on a PostgreSQL and a Redis of
// their own.
func TestOperatorScripts(t *testing.T) {
	runScripts(t, "testdata/operator", testenv.Postgres(t), "REDIS_URL="+testenv.Redis(t))
}

func runScripts(t *testing.T, dir, database string, settings ...string) {
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(env *testscript.Env) error {
			if database != "" {
				env.Setenv("DATABASE_URL", database)
			}
			env.Vars = append(env.Vars, settings...)
			env.Setenv("WATCHWORD_SERVER_ADDRESS", testenv.Address(t))
			// A machine that stands still for some seconds is nothing that a script is about.
			env.Setenv("WATCHWORD_REVOCATION_MAX_STALENESS", "1m")
			// The race detector would have every command wait a second at its end.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			// Hashes that cost next to nothing.
			env.Setenv("WATCHWORD_PASSWORD_MEMORY", "64KiB")
			env.Setenv("WATCHWORD_PASSWORD_ITERATIONS", "1")
			return nil
		},
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"login": login, "verify": verify, "eventually": eventually, "follow": follow},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// login USERNAME PASSWORD FILE: logs in at the script's server, for which it
// waits, and writes the access token to a file.
func login(ts *testscript.TestScript, neg bool, args []string) {
	body, err := json.Marshal(map[string]string{"username": args[0], "password": args[1]})
	ts.Check(err)
	status, answer := ask(ts, http.MethodPost, "/api/login", "", body)
	if neg {
		if status != http.StatusUnauthorized {
			ts.Fatalf("login: status %d, want 401: %s", status, answer)
		}
		return
	}
	var grant struct {
		AccessToken string `json:"access_token"`
	}
	ts.Check(json.Unmarshal(answer, &grant))
	if status != http.StatusOK || grant.AccessToken == "" {
		ts.Fatalf("login: status %d: %s", status, answer)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(grant.AccessToken+"\n"), 0o600))
}

// verify FILE: the server accepts the token in the file. With !, it comes to
// refuse it.
func verify(ts *testscript.TestScript, neg bool, args []string) {
	want := http.StatusOK
	if neg {
		want = http.StatusUnauthorized
	}
	token := strings.TrimSpace(ts.ReadFile(args[0]))
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		status, answer := ask(ts, http.MethodGet, "/api/verify", token, nil)
		if status == want {
			return
		}
		if time.Now().After(deadline) || !neg {
			ts.Fatalf("verify: status %d, want %d: %s", status, want, answer)
		}
	}
}

// eventually PATTERN PROGRAM [ARGS...]: the program's standard output comes to
// match the pattern.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		ts.Check(ts.Exec(args[1], args[2:]...))
		if out := ts.ReadFile("stdout"); pattern.MatchString(out) != neg {
			return
		} else if time.Now().After(deadline) {
			ts.Fatalf("%q never came; there is\n%s", args[0], out)
		}
	}
}

// follow DOCUMENT: does what the document of docs/deployment says in its blocks marked sh, each section in a
// shell of its own after before.sh.
func follow(ts *testscript.TestScript, _ bool, args []string) {
	text, err := os.ReadFile("../../docs/deployment/" + args[0])
	ts.Check(err)
	block := regexp.MustCompile("(?ms)^( *)```sh\n(.*?)^ *```")
	var script strings.Builder
	for section := range strings.SplitSeq(string(text), "\n## ") {
		title, _, _ := strings.Cut(section, "\n")
		fmt.Fprintf(&script, "(\n: %q\n", title)
		for _, b := range block.FindAllStringSubmatch(section, -1) {
			script.WriteString(b[2])
		}
		script.WriteString(")\n")
	}
	ts.Check(ts.Exec("bash", "-euxo", "pipefail", "-c", ts.ReadFile("before.sh")+script.String()))
}

// client leaves no connection behind, for which a server that is told to end would wait.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// ask sends one request, as soon as somebody listens.
func ask(ts *testscript.TestScript, method, path, bearer string, body []byte) (int, []byte) {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		req, err := http.NewRequest(method, "http://"+ts.Getenv("WATCHWORD_SERVER_ADDRESS")+path, bytes.NewReader(body))
		ts.Check(err)
		req.Header.Set("Content-Type", "application/json")
		if bearer != "" {
			req.Header.Set("Authorization", "Bearer "+bearer)
		}
		resp, err := client.Do(req)
		if err == nil && resp.StatusCode != http.StatusServiceUnavailable {
			answer, err := io.ReadAll(resp.Body)
			ts.Check(err)
			ts.Check(resp.Body.Close())
			return resp.StatusCode, answer
		}
		if err == nil {
			ts.Check(resp.Body.Close())
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s %s: no answer: %v", method, path, err)
		}
	}
}

// TestHelpTeaches: every command says what it does at length, and shows how.
func TestHelpTeaches(t *testing.T) {
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		if cmd.Short == "" || cmd.Long == "" || !strings.Contains(cmd.Example, "watchword") {
			t.Errorf("%s: a short text, a long text and an example are wanted", path)
		}
		for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
			if n := len([]rune(strings.TrimRight(line, "\n"))); n > 90 {
				t.Errorf("%s: a line of %d characters does not fit a terminal: %s", path, n, line)
			}
		}
		for _, sub := range cmd.Commands() {
			check(sub)
		}
	}
	check(newRoot())
}

// Neither does what clients have sent and a table has, such as the names in the audit trail.
func TestATableDoesNotSpeakToTheTerminal(t *testing.T) {
	var out bytes.Buffer
	table := newTable(&out, "ACTOR", "TARGET")
	table.row("\x1b]0;title\x07\r\u009b2J\u202e", "a\nroot\tall \xff ünïcödé 😀")
	if err := table.flush(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 3 || !strings.HasSuffix(lines[1], "  a\\u000aroot\\u0009all \ufffd ünïcödé 😀") {
		t.Errorf("%q", lines)
	}
	for _, c := range out.String() {
		if c != '\n' && !unicode.IsPrint(c) {
			t.Errorf("%U is written to the terminal", c)
		}
	}
}

// A token is looked into because it is strange: nothing in it reaches the terminal
// but as text.
func TestATokenDoesNotSpeakToTheTerminal(t *testing.T) {
	const evil = "\x1b]0;title\x07 \u009b2J \x7f \u202e \u200b \U000e0041 \r ünïcödé 😀"
	var out bytes.Buffer
	cmd := &cobra.Command{}
	cmd.SetOut(&out)
	report := token.Report{Claims: map[string]any{"name": evil}, Findings: []string{"It is strange."}}
	if err := printReport(cmd, report); !errors.Is(err, errNotValid) {
		t.Error(err)
	}
	for _, c := range out.String() {
		if c != '\n' && !unicode.IsPrint(c) {
			t.Errorf("%U is written to the terminal", c)
		}
	}
	shown, _, _ := strings.Cut(strings.TrimPrefix(out.String(), "claims: "), "\n- ")
	var claims map[string]string
	if err := json.Unmarshal([]byte(shown), &claims); err != nil || claims["name"] != evil || !strings.Contains(shown, "ünïcödé 😀") {
		t.Errorf("%v, %q in %s", err, claims["name"], shown)
	}
}
