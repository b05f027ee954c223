package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/app"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/doctor"
	"github.com/watchword-auth/watchword/internal/operator"
)

// maxDoctored bounds how many replicas are named on the command line.
const maxDoctored = 256

func newDoctor() *cobra.Command {
	var peers, ids []string
	var asJSON, strict, list bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong with a deployment",
		Long: `Look for what is wrong with a deployment: its settings, the database, Redis, the
replicas and what stands before them. Each check says what it saw, and how to mend it.
docs/doctor.md has all of them.

Run it with the same configuration as the replicas, on a machine that reaches what they
reach. It asks all replicas: those that cluster.discovery names and those in their
registry, or those at the URLs of --peers. Questions and answers are encrypted under
cluster.secret, so that nobody else can read them or be believed.

It changes nothing that users have: it does not migrate the database, and what it writes
to find out something expires within minutes.

It ends with the status 1 if a check found an error, or could not look for one; with
--strict also for warnings.`,
		Example: `  watchword doctor --config /etc/watchword.yaml
  watchword doctor --peers https://auth-0:8080,https://auth-1:8080 --json
  watchword doctor --check redis-eviction,tls-expiry --strict
  watchword doctor --list`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			checks, err := checksNamed(cmd, ids)
			if err != nil {
				return err
			}
			if list {
				return listChecks(cmd, checks)
			}
			places, err := placesNamed(cmd, peers)
			if err != nil {
				return err
			}
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			if len(places) > 0 && !cfg.Cluster.Enabled {
				return errors.New("--peers: cluster.enabled is false, so there are no replicas that know each other")
			}
			d, closeAll, err := operator.OpenDeployment(cmd.Context(), cfg, app.NewLogger(silent, os.Stderr), places)
			if err != nil {
				return err
			}
			r := doctor.Report{Results: doctor.Run(cmd.Context(), d, checks), At: time.Now(), Reach: d.Reach}
			closed := closeAll()
			if err := cmd.Context().Err(); err != nil {
				return err // what was not looked at says nothing
			}
			write := r.Text
			if asJSON {
				write = r.JSON
			}
			return errors.Join(write(cmd.OutOrStdout()), closed, doctorVerdict(r, strict))
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&peers, "peers", nil, "base `URLs` of the replicas to ask, instead of those that are found")
	flags.StringSliceVar(&ids, "check", nil, "`IDs` of the checks to run (default: all)")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	flags.BoolVar(&strict, "strict", false, "end with the status 1 also for warnings")
	flags.BoolVar(&list, "list", false, "print the checks and run none")
	return cmd
}

// checksNamed returns the checks with the ids; no ids: all.
func checksNamed(cmd *cobra.Command, ids []string) ([]doctor.Check, error) {
	all := doctor.Checks()
	if len(ids) == 0 {
		return all, nil
	}
	var some []doctor.Check
	for _, id := range ids {
		i := slices.IndexFunc(all, func(c doctor.Check) bool { return c.ID == id })
		if i < 0 {
			return nil, misused(cmd, fmt.Errorf("--check: there is no check %q; --list shows them", id))
		}
		some = append(some, all[i])
	}
	return some, nil
}

// placesNamed returns the base URLs of replicas.
func placesNamed(cmd *cobra.Command, peers []string) (places []string, err error) {
	if len(peers) > maxDoctored {
		return nil, misused(cmd, fmt.Errorf("--peers: at most %d URLs", maxDoctored))
	}
	for _, text := range peers {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, misused(cmd, fmt.Errorf("--peers: %q is no base URL such as https://auth-0:8080", config.MaskURL(text)))
		}
		places = append(places, strings.TrimRight(text, "/"))
	}
	return places, nil
}

func listChecks(cmd *cobra.Command, checks []doctor.Check) error {
	t := newTable(cmd.OutOrStdout(), "CHECK", "FINDS", "WHAT HOLDS")
	for _, c := range checks {
		t.row(c.ID, c.Finds(), c.Title)
	}
	return t.flush()
}

// doctorVerdict returns what ends the command with an error; nil: nothing does.
func doctorVerdict(r doctor.Report, strict bool) error {
	var wrong []error
	c := r.Counts()
	if c.Errors > 0 {
		wrong = append(wrong, fmt.Errorf("checks that found an error, or could not look for one: %d", c.Errors))
	}
	if c.Warnings > 0 && strict {
		wrong = append(wrong, fmt.Errorf("checks that found a warning, or could not look for one: %d", c.Warnings))
	}
	return errors.Join(wrong...)
}
