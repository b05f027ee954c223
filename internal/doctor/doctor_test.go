package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/discovery"
)

// Every check has what documents, alerts and people know it by, and the page has all of them.
func TestChecksAreDescribed(t *testing.T) {
	text, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	form, seen := regexp.MustCompile(`^[a-z]+(-[a-z0-9]+)*$`), map[string]bool{}
	for _, c := range Checks() {
		if !form.MatchString(c.ID) || seen[c.ID] {
			t.Errorf("%q is no id, or that of two checks", c.ID)
		}
		seen[c.ID] = true
		if c.Title == "" || strings.HasSuffix(c.Title, ".") || strings.ContainsAny(c.Title+c.Means, "|\n") {
			t.Errorf("%s: the title is %q", c.ID, c.Title)
		}
		if !strings.HasSuffix(c.Means, ".") {
			t.Errorf("%s: what it means is %q", c.ID, c.Means)
		}
		if c.Severity != Error && c.Severity != Warning && c.Severity != Advice {
			t.Errorf("%s: the severity is %q", c.ID, c.Severity)
		}
		if !strings.Contains(string(text), "| `"+c.ID+"` | "+c.Finds()+" |") {
			t.Errorf("docs/doctor.md does not have %s: run make docs", c.ID)
		}
	}
	if len(seen) < 25 {
		t.Errorf("there are only %d checks", len(seen))
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		none := func(context.Context, *Deployment) ([]Finding, error) { return nil, nil }
		var mu sync.Mutex
		var running, most int
		count := func(n int) {
			mu.Lock()
			defer mu.Unlock()
			running += n
			most = max(most, running)
		}
		slow := func(context.Context, *Deployment) ([]Finding, error) {
			count(1)
			time.Sleep(time.Second)
			count(-1)
			return nil, nil
		}
		checks := []Check{
			{ID: "good", Severity: Error, Run: none},
			{ID: "bad", Severity: Error, Run: func(context.Context, *Deployment) ([]Finding, error) { return []Finding{{Seen: "a fault"}}, nil }},
			{ID: "skips", Severity: Error, Run: func(context.Context, *Deployment) ([]Finding, error) {
				return nil, fmt.Errorf("about it: %w", Skip("there is none"))
			}},
			{ID: "fails", Severity: Warning, Run: func(context.Context, *Deployment) ([]Finding, error) { return nil, errors.New("it is away") }},
			{ID: "panics", Severity: Advice, Run: func(context.Context, *Deployment) ([]Finding, error) { panic("a hole") }},
			{ID: "hangs", Severity: Warning, Run: func(ctx context.Context, _ *Deployment) ([]Finding, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}},
		}
		for range 3 * atOnce {
			checks = append(checks, Check{ID: "slow", Run: slow})
		}
		began := time.Now()
		r := Report{Results: Run(t.Context(), &Deployment{}, checks)}
		if took := time.Since(began); took < checkTimeout || took > checkTimeout+5*time.Second {
			t.Errorf("it took %s", took)
		}
		if most > atOnce || most < 2 {
			t.Errorf("%d ran at once", most)
		}
		for i, want := range []Result{
			{Status: OK}, {Status: Failed}, {Status: Skipped, Reason: "there is none"}, {Status: Unknown, Reason: "it is away"},
			{Status: Unknown, Reason: "the check failed: a hole"}, {Status: Unknown, Reason: "context deadline exceeded"},
		} {
			if got := r.Results[i]; got.Status != want.Status || got.Reason != want.Reason || got.ID != checks[i].ID {
				t.Errorf("%s: %s %q, want %s %q", got.ID, got.Status, got.Reason, want.Status, want.Reason)
			}
		}
		if c := r.Counts(); c != (Counts{Errors: 1, Warnings: 2, Advice: 0, Unknown: 3}) {
			t.Errorf("counted %+v", c)
		}
	})
}

// A check that does not heed the time that it has is left behind, and a replica does not begin it
// again meanwhile.
func TestCheckThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var begun atomic.Int64
		hangs := oneAtATime(Check{ID: "hangs", Severity: Error, Run: func(context.Context, *Deployment) ([]Finding, error) {
			begun.Add(1)
			<-release
			return []Finding{{Seen: "a fault"}}, nil
		}})
		good := Check{ID: "good", Severity: Error, Run: func(context.Context, *Deployment) ([]Finding, error) { return nil, nil }}
		for _, want := range []string{"has not ended after 31s", "an earlier run of the check has not ended", "an earlier run of the check has not ended"} {
			began := time.Now()
			r := Run(t.Context(), &Deployment{}, []Check{hangs, good})
			if took := time.Since(began); took > checkTimeout+checkGrace {
				t.Errorf("it took %v", took)
			}
			if r[0].ID != "hangs" || r[0].Severity != Error || r[0].Status != Unknown || !strings.Contains(r[0].Reason, want) || r[1].Status != OK {
				t.Errorf("%+v, want %q", r, want)
			}
		}
		if n := begun.Load(); n != 1 {
			t.Errorf("it hangs %d times", n)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		began := time.Now()
		if r := Run(ended, &Deployment{}, []Check{hangs}); r[0].Status != Unknown || time.Since(began) > checkGrace {
			t.Errorf("%+v after %v", r, time.Since(began))
		}
		close(release)
		synctest.Wait()
		if r := Run(t.Context(), &Deployment{}, []Check{hangs}); r[0].Status != Failed {
			t.Errorf("when it no longer hangs: %+v", r)
		}
	})
}

// What replicas and servers say cannot command a terminal, and is whole in JSON.
func TestReport(t *testing.T) {
	r := Report{At: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC), Results: []Result{
		{ID: "a", Title: "A holds", Severity: Error, Status: Failed, Findings: []Finding{{"auth-1", "\x1b[2Jgone\nerror    forged: x\u202e\xff", "do it"}, {"", "more", "that"}}},
		{ID: "b", Title: "B holds", Severity: Advice, Status: Unknown, Reason: "it is\r\naway"},
		{ID: "c", Title: "C holds", Severity: Warning, Status: OK},
		{ID: "d", Title: "D holds", Severity: Error, Status: Skipped, Reason: "there is none"},
	}}
	var text, js bytes.Buffer
	if err := errors.Join(r.Text(&text), r.JSON(&js)); err != nil {
		t.Fatal(err)
	}
	const want = `skipped  d: there is none
ok       c: C holds
unknown  b: B holds
         it is  away
error    a: A holds
       * auth-1:  [2Jgone error    forged: x  
         To mend it: do it
       * more
         To mend it: that

4 checks: 1 with errors, 0 with warnings, 0 with advice; 1 could not look
`
	if text.String() != want {
		t.Errorf("%q\nwant\n%q", text.String(), want)
	}
	var back struct {
		Errors, Unknown int
		Checks          []Result
	}
	if err := json.Unmarshal(js.Bytes(), &back); err != nil || back.Errors != 1 || back.Unknown != 1 || len(back.Checks) != 4 || back.Checks[0].Findings[1].Mend != "that" {
		t.Errorf("%v: %s", err, js.String())
	}
}

// An answer is a replica's own, and is whole.
func TestAsk(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		err    error
		good   bool
	}{
		"honest":            {`{"instance":"auth-1","version":"1"}`, nil, true},
		"in another's name": {`{"instance":"auth-2"}`, nil, false},
		"in nobody's name":  {`{}`, nil, false},
		"no answer":         {``, nil, false},
		"refused":           {`{"instance":"auth-1"}`, errors.New("it answers 403"), false},
	} {
		f, err := ask(Question{Read: "x"}, func(question []byte) (string, []byte, error) {
			if string(question) != `{"read":"x"}` {
				t.Errorf("asked %s", question)
			}
			return "auth-1", []byte(c.answer), c.err
		})
		if (err == nil) != c.good || (f.Instance != "") != c.good {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
}

// A replica of an older version, or one that is alone, does not know a doctor's questions, and is
// not said to be out of reach.
func TestReplicaWithoutAnswer(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	asker, err := cluster.NewAsker(strings.Repeat("s", cluster.MinSecret), func(string) *http.Client { return server.Client() })
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Cluster.Enabled = true
	d := &Deployment{Config: cfg, Reach: All, Now: time.Now}
	d.AskReplicas(t.Context(), Round{Asker: asker, Places: []discovery.Peer{{URL: server.URL}}})
	if found, err := replicaAnswers(t.Context(), d); len(found) != 0 || err == nil || !strings.Contains(err.Error(), server.URL) || !strings.Contains(err.Error(), "older version") {
		t.Errorf("%v, %v", found, err)
	}
	server.Close()
	d.Replicas = nil
	d.AskReplicas(t.Context(), Round{Asker: asker, Places: []discovery.Peer{{URL: server.URL}}})
	if found, err := replicaAnswers(t.Context(), d); len(found) != 1 || err != nil {
		t.Errorf("one that is gone: %v, %v", found, err)
	}
}

// What is to be tried shows no password, also one that was written where the user's name stands.
func TestWhatIsTried(t *testing.T) {
	for text, shown := range map[string]string{
		"redis://:hunter2@cache:1":                    "-p 1 --askpass",
		"redis://hunter2@cache:1":                     "-p 1 --askpass",
		"rediss://watchword:hunter2@cache:1":          "-p 1 --tls --user watchword --askpass",
		"redis://watchword:hunter2@cache:1?x=hunter2": "--user watchword --askpass",
	} {
		if got := redisTry(text); strings.Contains(got, "hunter2") || !strings.Contains(got, shown) {
			t.Errorf("%s: %s", text, got)
		}
	}
	for _, text := range []string{"postgres://u:hunter2@db/x", "postgres://u@db/x?password=hunter2", "mysql://u:hunter2@db/x", "mysql://u:hun%zzter2@db"} {
		if got := databaseTry(text); strings.Contains(got, "hunter2") {
			t.Errorf("%s: %s", text, got)
		}
	}
}
