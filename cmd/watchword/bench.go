package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/loadgen"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/secretfile"
)

const (
	// maxBenchUsers bounds the users of a run.
	maxBenchUsers = 10_000
	// maxBenchCallers bounds the requests that are under way at once.
	maxBenchCallers = 10_000
	// maxBenchTime bounds a run.
	maxBenchTime = 24 * time.Hour
	// openCallers is how many requests may be under way at once in the open loop by default.
	openCallers = 256
)

// benchFlags are the flags of bench.
type benchFlags struct {
	admin, usersFile string
	users            int
	mix              string
	expect           []string
	caFile, html     string
	asJSON           bool
	page             *os.File // for html; nil: none is written
	written          bool     // the page is
	run              loadgen.Config
}

func newBench() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench [URL...]",
		Short: "Put load on replicas, and check every answer",
		Long: `Log in, renew, verify and revoke as often as is said, at one URL or at many in turns, and
measure how long that takes. Without a URL, server.public_url is asked.

With --rate, requests come at fixed times whether the former ones have been answered or
not, and a latency counts from the time at which its request was due: a service that
stands still cannot hide it. Without, a number of callers wait for each answer.

It ends with the status 1 if a revoked token was accepted later than --bound after its
logout was answered; if a good token, refresh token or password was rejected, or a forged
token accepted; if more requests were allowed than the answers (RateLimit-Policy) or
--expect-limit say; if an answer was not what the API promises; or if a kind of request
never succeeded. Answers 429 and 503, and none, are counted and shown.

The users are made by an administrator without a second factor, whose password is read
from the terminal or from standard input, and removed at the end; their names begin with
bench-. Or they stand in a CSV file, a username and a password in each line.

All requests come from one address and few users, so limits.login,
server.max_requests_per_address and _per_user refuse much of a load that would be no
trouble from many clients: set them higher where the capacity is measured.

Load can harm: do not use it where others work. Each logout adds an entry to the
revocation log, which stays until the session's tokens have expired.`,
		Example: `  watchword bench --admin admin http://127.0.0.1:8080
  watchword bench --admin admin --rate 500 --html out.html https://auth-0 https://auth-1
  watchword bench --users-file users.csv --mix verify=90,renew=10 --callers 64 --json
  watchword bench --admin admin --expect-limit login-account=30/5m --probe-limits`,
		Args: arguments(0, 256),
		RunE: func(cmd *cobra.Command, args []string) error { return bench(cmd, &f, args) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.admin, "admin", "", "`name` of the administrator who makes the users")
	flags.IntVar(&f.users, "users", 100, "`number` of users that are made")
	flags.StringVar(&f.usersFile, "users-file", "", "CSV `file` of users instead: username,password")
	flags.StringVar(&f.mix, "mix", "verify=80,renew=16,login=2,revoke=2", "`weights` of login, renew, verify and revoke (a logout)")
	flags.Float64Var(&f.run.Rate, "rate", 0, "open loop: so many `requests` a second")
	flags.IntVar(&f.run.Callers, "callers", 16, fmt.Sprintf("closed loop: `number` of callers; open loop: of requests under way at most (default %d)", openCallers))
	flags.IntVar(&f.run.Sessions, "sessions", 100, "`number` of sessions that begin before the load")
	flags.DurationVar(&f.run.Duration, "duration", 30*time.Second, "for how long is measured")
	flags.DurationVar(&f.run.Warmup, "warmup", 3*time.Second, "for how long there is load before")
	flags.DurationVar(&f.run.Timeout, "timeout", 10*time.Second, "how long an answer may take")
	flags.DurationVar(&f.run.Bound, "bound", 5*time.Second, "how long a revoked token may be accepted: revocation.max_staleness of the replicas")
	flags.StringArrayVar(&f.expect, "expect-limit", nil, "a `limit` that must hold, whether answers name it or not: login-account=30/5m")
	flags.BoolVar(&f.run.ProbeLimits, "probe-limits", false, "at the end, log one user in more often than an account may, everywhere at once")
	flags.Uint64Var(&f.run.Seed, "seed", 0, "choose as the run with this `seed` (default: another one each time)")
	flags.StringVar(&f.caFile, "ca-file", "", "PEM `file` of authorities that are trusted instead of the system's")
	flags.BoolVar(&f.asJSON, "json", false, "write the report as JSON")
	flags.StringVar(&f.html, "html", "", "write the report to a new `file` as well, as a page with plots")
	return cmd
}

// bench is one run from its flags to its verdict.
func bench(cmd *cobra.Command, f *benchFlags, args []string) error {
	if err := f.read(cmd); err != nil {
		return misused(cmd, err)
	}
	if err := f.urls(cmd, args); err != nil {
		return err
	}
	roots, err := operator.Certificates("--ca-file", f.caFile)
	if err != nil {
		return err
	}
	if f.html != "" { // now, and not after an hour of load
		if f.page, err = os.OpenFile(f.html, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644); err != nil {
			return err
		}
		defer func() {
			f.page.Close()
			if !f.written { // there was nothing to report
				os.Remove(f.html)
			}
		}()
	}
	f.run.Version = versionName()
	f.run.Client = loadgen.NewClient(f.run.Callers, roots)
	defer f.run.Client.CloseIdleConnections()
	ctx := cmd.Context()
	if f.usersFile != "" {
		if f.run.Users, err = readBenchUsers(f.usersFile); err != nil {
			return err
		}
		return f.measure(ctx, cmd)
	}
	password, err := readSecret(cmd, "password", false)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "making %d users …\n", f.users)
	made, err := loadgen.MakeUsers(ctx, f.run.Client, f.run.URLs[0], loadgen.User{Username: f.admin, Password: password}, f.users)
	if err != nil {
		return err
	}
	f.run.Users = made.Users
	err = f.measure(ctx, cmd)
	fmt.Fprintln(cmd.ErrOrStderr(), "removing the users …")
	return errors.Join(err, made.Remove(ctx))
}

// measure runs the load, writes the reports, and returns the verdict.
func (f *benchFlags) measure(ctx context.Context, cmd *cobra.Command) error {
	f.run.Progress = progressLine(cmd.ErrOrStderr())
	rep, err := loadgen.Run(ctx, f.run)
	if err != nil {
		return err
	}
	fmt.Fprintln(cmd.ErrOrStderr())
	if f.asJSON {
		lines := json.NewEncoder(cmd.OutOrStdout())
		lines.SetIndent("", "  ")
		err = lines.Encode(rep)
	} else {
		err = rep.WriteText(cmd.OutOrStdout())
	}
	if err == nil && f.page != nil {
		f.written = true
		err = errors.Join(rep.WriteHTML(f.page), f.page.Close())
	}
	if err == nil && rep.Interrupted {
		err = errors.New("it was interrupted")
	}
	return errors.Join(rep.Verdict(), err)
}

// read turns flags into what is run.
func (f *benchFlags) read(cmd *cobra.Command) error {
	c := &f.run
	if (f.admin == "") == (f.usersFile == "") {
		return errors.New("one of --admin and --users-file is needed")
	}
	if c.Rate > 0 && !cmd.Flags().Changed("callers") {
		c.Callers = openCallers
	}
	if !cmd.Flags().Changed("seed") {
		c.Seed = rand.Uint64()
	}
	for _, one := range []struct {
		flag     string
		n, limit int
	}{{"users", f.users, maxBenchUsers}, {"callers", c.Callers, maxBenchCallers}, {"sessions", c.Sessions, 50 * maxBenchUsers}} {
		if one.n < 1 || one.n > one.limit {
			return fmt.Errorf("--%s: 1 to %d", one.flag, one.limit)
		}
	}
	for flag, d := range map[string]time.Duration{"duration": c.Duration, "timeout": c.Timeout, "bound": c.Bound} {
		if d < 100*time.Millisecond || d > maxBenchTime {
			return fmt.Errorf("--%s: 100ms to %v", flag, maxBenchTime)
		}
	}
	if c.Warmup < 0 || c.Warmup > maxBenchTime {
		return fmt.Errorf("--warmup: 0s to %v", maxBenchTime)
	}
	if c.Rate < 0 || c.Rate > 1e6 {
		return errors.New("--rate: at most 1,000,000 requests a second")
	}
	c.Mix = loadgen.Mix{}
	for item := range strings.SplitSeq(f.mix, ",") {
		name, weight, ok := strings.Cut(strings.TrimSpace(item), "=")
		n, err := strconv.Atoi(weight)
		op := loadgen.Operation(name)
		_, twice := c.Mix[op]
		if !ok || err != nil || n < 0 || n > 1e6 || twice || !slices.Contains(loadgen.Operations, op) {
			return fmt.Errorf("--mix: %q is not one of login, renew, verify and revoke with its weight, such as verify=80", item)
		}
		c.Mix[op] = n
	}
	for _, item := range f.expect {
		name, text, _ := strings.Cut(item, "=")
		var rate config.Rate
		class, by, _ := strings.Cut(name, "-")
		if err := rate.UnmarshalText([]byte(text)); err != nil || rate.Count == 0 ||
			!slices.Contains([]string{"login", "renew", "api"}, class) || by != "account" && by != "address" {
			return fmt.Errorf("--expect-limit: %q is not a limit such as login-account=30/5m, of login, renew or api, by account or address", item)
		}
		c.Limits = append(c.Limits, loadgen.Limit{Name: name, N: rate.Count, Window: rate.Per})
	}
	return nil
}

// urls are those that are named, or that of the configuration.
func (f *benchFlags) urls(cmd *cobra.Command, named []string) error {
	if len(named) == 0 {
		cfg, err := loadConfig(cmd)
		if err != nil {
			return err
		}
		named = []string{cfg.Server.PublicURL}
	}
	for _, base := range named {
		u, err := url.Parse(base)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return misused(cmd, fmt.Errorf("%q is no http or https URL of a replica", base))
		}
		f.run.URLs = append(f.run.URLs, strings.TrimRight(base, "/"))
	}
	return nil
}

// readBenchUsers reads users with their passwords.
func readBenchUsers(path string) (users []loadgen.User, err error) {
	data, _, err := secretfile.Rules{Max: 4 << 20, Denied: 0o007}.Read(path)
	if err != nil {
		return nil, err
	}
	r := csv.NewReader(strings.NewReader(string(data)))
	r.FieldsPerRecord = 2
	for seen := map[string]bool{}; ; {
		row, err := r.Read()
		switch {
		case errors.Is(err, io.EOF) && len(users) == 0:
			return nil, fmt.Errorf("%s has no users", path)
		case errors.Is(err, io.EOF):
			return users, nil
		case err != nil:
			line, _ := r.FieldPos(0)
			return nil, fmt.Errorf("%s, line %d: it is not username,password", path, line) // and perhaps a password
		case row[0] == "username" && row[1] == "password":
			continue
		case seen[row[0]]:
			return nil, fmt.Errorf("%s: the user %s is there twice", path, row[0])
		case len(users) == maxBenchUsers:
			return nil, fmt.Errorf("%s has more than %d users", path, maxBenchUsers)
		}
		seen[row[0]] = true
		users = append(users, loadgen.User{Username: row[0], Password: row[1]})
	}
}

// progressLine writes one line that changes on a terminal, and elsewhere one every ten
// seconds.
func progressLine(out io.Writer) func(loadgen.Progress) {
	terminal := false
	if file, ok := out.(*os.File); ok {
		terminal = term.IsTerminal(int(file.Fd()))
	}
	last := time.Duration(0)
	return func(p loadgen.Progress) {
		line := fmt.Sprintf("%3.0f of %.0f s  %6.0f/s  p99 %v  failed %d  violations %d", p.Elapsed.Seconds(), p.Total.Seconds(), p.PerSecond, p.P99.Round(100*time.Microsecond), p.Failed, p.Violations)
		switch {
		case terminal:
			fmt.Fprintf(out, "\r\x1b[K%s", line)
		case p.Elapsed-last >= 10*time.Second:
			last = p.Elapsed
			fmt.Fprintln(out, line)
		}
	}
}
