package doctor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A Severity says what a fault costs.
type Severity string

// What a fault costs, the least first.
const (
	Advice  Severity = "advice"  // it could be better
	Warning Severity = "warning" // a promise will be broken when something else happens, such as a restart
	Error   Severity = "error"   // a promise is broken now, or cannot be kept
)

// A Check looks for one kind of fault.
type Check struct {
	ID       string   // stable, such as "redis-eviction"; documents and alerts name it
	Title    string   // what holds when nothing is found, as a sentence without a full stop
	Severity Severity // of what it finds; see Finds for where it is milder
	// Means is what goes wrong while it finds something, and what to do in general: one or two
	// sentences for docs/doctor.md, which is made from the checks.
	Means string
	// Run returns what is wrong; nothing: it is as the title says. Skip says that the check
	// has nothing to look at here. Any other error means that it could not look.
	Run func(ctx context.Context, d *Deployment) ([]Finding, error)
}

// Finds returns the severity of what the check finds in words, for lists of checks.
func (c Check) Finds() string {
	if copiesOnly[c.ID] {
		return fmt.Sprintf("%s; %s with tiered", c.Severity, Warning)
	}
	return string(c.Severity)
}

// severity is that of what the check finds in a deployment.
func (c Check) severity(d *Deployment) Severity {
	if copiesOnly[c.ID] && !d.redisAlone() {
		return Warning
	}
	return c.Severity
}

// A Finding is one fault.
type Finding struct {
	Subject string `json:"subject,omitempty"` // what it is about, such as a replica; empty: the whole deployment
	Seen    string `json:"seen"`              // what was seen
	Mend    string `json:"mend"`              // what to do, exactly
}

// Skip is the error of a check that has nothing to look at; its text says why.
type Skip string

// Error returns the reason.
func (s Skip) Error() string { return string(s) }

// A Status is what came of a check.
type Status string

// What came of a check.
const (
	OK      Status = "ok"
	Failed  Status = "failed"
	Unknown Status = "unknown" // it could not look
	Skipped Status = "skipped" // it has nothing to look at here
)

// A Result is what came of one check.
type Result struct {
	ID       string    `json:"id"`
	Title    string    `json:"title"`
	Severity Severity  `json:"severity"`
	Status   Status    `json:"status"`
	Reason   string    `json:"reason,omitempty"` // why it is unknown or skipped
	Findings []Finding `json:"findings,omitempty"`
}

const (
	// checkTimeout bounds one check.
	checkTimeout = 30 * time.Second
	// checkGrace is how long a check may take to notice that its time is over. One that does not,
	// such as on a file system that hangs, is left behind.
	checkGrace = time.Second
)

// atOnce is how many checks run side by side: a running replica serves requests with the connections
// that they use.
const atOnce = 8

// Run runs the checks side by side and returns their results in the order of the checks.
func Run(ctx context.Context, d *Deployment, checks []Check) []Result {
	results := make([]Result, len(checks))
	places := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, c := range checks {
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			results[i] = c.run(ctx, d)
		})
	}
	all.Wait()
	return results
}

func (c Check) run(ctx context.Context, d *Deployment) Result {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	began := time.Now()
	done := make(chan Result, 1)
	go func() { done <- c.look(ctx, d) }()
	select {
	case r := <-done:
		return r
	case <-ctx.Done():
	}
	select {
	case r := <-done:
		return r
	case <-time.After(checkGrace):
		took := time.Since(began)
		return Result{
			ID: c.ID, Title: c.Title, Severity: c.severity(d), Status: Unknown,
			Reason: fmt.Sprintf("the check has not ended after %v: what it looks at hangs", took.Round(time.Second)),
		}
	}
}

// oneAtATime makes a check that does not look while it still does, so that one that hangs hangs
// once, however often it is run.
func oneAtATime(c Check) Check {
	place, run := make(chan struct{}, 1), c.Run
	c.Run = func(ctx context.Context, d *Deployment) ([]Finding, error) {
		select {
		case place <- struct{}{}:
		case <-ctx.Done():
			return nil, errors.New("an earlier run of the check has not ended: what it looks at hangs")
		}
		defer func() { <-place }()
		return run(ctx, d)
	}
	return c
}

func (c Check) look(ctx context.Context, d *Deployment) (r Result) {
	r = Result{ID: c.ID, Title: c.Title, Severity: c.severity(d), Status: OK}
	defer func() {
		if thrown := recover(); thrown != nil {
			r.Status, r.Reason = Unknown, fmt.Sprintf("the check failed: %v", thrown)
		}
	}()
	findings, err := c.Run(ctx, d)
	switch skip := Skip(""); {
	case errors.As(err, &skip):
		r.Status, r.Reason = Skipped, string(skip)
	case err != nil:
		r.Status, r.Reason = Unknown, err.Error()
	case len(findings) > 0:
		r.Status, r.Findings = Failed, findings
	}
	return r
}

// A Group is the checks of one subject.
type Group struct {
	Title  string
	Checks []Check
}

// Groups are all checks, from what one replica sees by itself to what clients see.
func Groups() []Group {
	return []Group{
		{"Settings and certificates", settingChecks},
		{"The database", databaseChecks},
		{"Redis", redisChecks},
		{"The replicas and their registry", replicaChecks},
		{"From replica to replica", probeChecks},
		{"Through the load balancer", frontChecks},
	}
}

// Checks are all checks, in the order of their groups.
func Checks() (all []Check) {
	for _, g := range Groups() {
		all = append(all, g.Checks...)
	}
	return all
}
