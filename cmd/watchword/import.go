package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/csvfile"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/stoke"
	"github.com/watchword-auth/watchword/internal/userfile"
)

func newImport() *cobra.Command {
	return group(&cobra.Command{
		Use:   "import",
		Short: "Bring users from another system, with their passwords",
		Long: `Bring users from another system, with their password hashes, groups and claims.

What is there is not changed: a user, group or claim that is there just so is counted, and
one that is there otherwise is refused. So an import can be made again. Everything that is
refused is told with its reason, and is not made; the rest is. The exit code is 1 if
anything was refused.

Hashes of Argon2id, bcrypt and PBKDF2 are kept, and replaced at the user's next login.
docs/moving.md has the steps.`,
		Example: `  watchword import csv users.csv --dry-run --report refused.csv
  watchword import json document.json
  watchword import stoke sqlite:/var/lib/stoke/stoke.db`,
	}, newImportFile(userfile.CSV), newImportFile(userfile.JSON), newImportStoke())
}

func newImportFile(form userfile.Form) *cobra.Command {
	about := map[userfile.Form]*cobra.Command{
		userfile.CSV: {
			Use:   "csv FILE",
			Short: "Import users from a table",
			Long: `Import users from a table (RFC 4180, UTF-8) of any size; FILE - is standard input. The
first line names the columns, in any order:

` + listed(userfile.Columns) + `

Only username has to be there. Groups are separated by semicolons, and have to be there
already.`,
			Example: `  watchword import csv users.csv --dry-run
  watchword import csv users.csv --report refused.csv`,
		},
		userfile.JSON: {
			Use:   "json FILE",
			Short: "Import users, groups and claims from JSON",
			Long: `Import from JSON of any size; FILE - is standard input. It is an array of users, an
object in each line, or a document {"claims":[…],"groups":[…],"users":[…]}, in this
order. A group has name and claims; a claim has name, short_name and value. The members
of a user, of which only username has to be there, are

` + listed(userfile.Columns) + `.`,
			Example: `  watchword import json document.json --dry-run
  watchword import json users.jsonl --report refused.json`,
		},
	}[form]
	return importing(about, func(ctx context.Context, argument string, cmd *cobra.Command, run moveFunc) error {
		file := io.NopCloser(cmd.InOrStdin())
		if argument != "-" {
			opened, err := os.Open(argument)
			if err != nil {
				return err
			}
			if info, err := opened.Stat(); err == nil && info.Mode().Perm()&0o044 != 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "Others on this machine can read %s; if it has password hashes, deny them (chmod 600).\n", argument)
			}
			file = opened
		}
		defer func() { _ = file.Close() }()
		return run(directory.Moving{From: string(form)}, func(to userfile.Sink) error { return userfile.Scan(file, form, to) })
	})
}

func newImportStoke() *cobra.Command {
	return importing(&cobra.Command{
		Use:   "stoke URL",
		Short: "Import everything from the database of a Stoke",
		Long: `Import users, claim groups and claims from the database of a Stoke, which is only read.
URL is sqlite:FILE, postgres://… or mysql://…, as in database.url. If it is -, it is read
from standard input, so that no other user of this machine sees the password in it.

Local users keep their passwords. Users of LDAP and other sources come without one, and
what links groups of those sources to claim groups stays behind. A claim of the short name
admin is refused, because it gives rights of administration here; Stoke's own stk is an
ordinary claim.`,
		Example: `  watchword import stoke sqlite:/var/lib/stoke/stoke.db --dry-run
  watchword import stoke - < /run/secrets/stoke-database`,
	}, func(ctx context.Context, argument string, cmd *cobra.Command, run moveFunc) (err error) {
		if argument == "-" {
			text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 4096))
			if err != nil {
				return err
			}
			argument = strings.TrimSpace(string(text))
		}
		db, err := stoke.Open(ctx, argument)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		err = run(directory.Moving{From: "stoke", Foreign: true}, func(to userfile.Sink) error { return db.Each(ctx, to) })
		if db.Left.NoPassword > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "%d users have no password in Stoke, and so none here (watchword user recover).\n", db.Left.NoPassword)
		}
		if db.Left.GroupLinks > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "%d links from groups of LDAP and other sources stay behind.\n", db.Left.GroupLinks)
		}
		return err
	})
}

// A moveFunc imports what a source has.
type moveFunc func(how directory.Moving, source func(userfile.Sink) error) error

// importing completes a command that imports from the place that its argument names.
func importing(cmd *cobra.Command, open func(ctx context.Context, argument string, cmd *cobra.Command, run moveFunc) error) *cobra.Command {
	var dryRun bool
	var reportFile string
	cmd.Args = arguments(1, 1)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "change nothing, and tell what would be made and refused")
	cmd.Flags().StringVar(&reportFile, "report", "", "write all that was refused to `file`: as JSON if its name ends in .json, otherwise as CSV")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		on := with
		if dryRun {
			on = reading
		}
		return on(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
			return open(ctx, args[0], cmd, func(how directory.Moving, source func(userfile.Sink) error) error {
				report, err := newReport(cmd.ErrOrStderr(), reportFile)
				if err != nil {
					return err
				}
				progress := movingProgress{to: cmd.ErrOrStderr(), began: time.Now(), noted: time.Now()}
				how.DryRun, how.Refused, how.Progress = dryRun, report.add, progress.note
				moved, err := p.Directory.Move(ctx, source, how)
				err = errors.Join(err, report.close())
				tellMoved(cmd.OutOrStdout(), moved, dryRun)
				if err == nil && moved.Refused > 0 {
					err = fmt.Errorf("%d of %d were refused", moved.Refused, moved.Read())
				}
				return err
			})
		})
	}
	return cmd
}

func tellMoved(w io.Writer, m directory.Moved, dryRun bool) {
	made := "Made"
	if dryRun {
		made = "Would make"
	}
	fmt.Fprintf(w, "%s %d users, %d groups, %d claims and %d links; %d were there just so, %d refused.\n", made, m.Users, m.Groups, m.Claims, m.Links, m.Present, m.Refused)
}

// progressEvery is how often the progress of a long import is told.
const progressEvery = 5 * time.Second

type movingProgress struct {
	to           io.Writer
	began, noted time.Time
}

func (p *movingProgress) note(m directory.Moved) {
	now := time.Now()
	if now.Sub(p.noted) < progressEvery {
		return
	}
	p.noted = now
	fmt.Fprintf(p.to, "%d read, %d refused, %.0f in a second\n", m.Read(), m.Refused, float64(m.Read())/now.Sub(p.began).Seconds())
}

// toldRefusals is how many refusals are shown; the others are in the report.
const toldRefusals = 20

// A moveReport tells of what is refused.
type moveReport struct {
	to    io.Writer
	n     int
	file  *os.File // nil: none was asked for
	text  *bufio.Writer
	table *csvfile.Writer // nil: JSON
}

// newReport begins a report, in a new file that no other user can read. It replaces an earlier report,
// and no other file: the name may be a slip, as that of the file that is imported.
func newReport(to io.Writer, name string) (*moveReport, error) {
	r := &moveReport{to: to}
	if name == "" {
		return r, nil
	}
	there, err := isReport(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case !there:
		return nil, fmt.Errorf("%s is no report that could be replaced; give the report another name", name)
	default:
		if err := os.Remove(name); err != nil {
			return nil, err
		}
	}
	if r.file, err = os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600); err != nil {
		return nil, err
	}
	r.text = bufio.NewWriter(r.file)
	if strings.HasSuffix(name, ".json") {
		_, err = r.text.WriteString("[")
		return r, err
	}
	r.table = csvfile.NewWriter(r.text)
	return r, r.table.Line("what", "line", "name", "code", "why")
}

// isReport reports whether a file is a report, or empty as one that was begun and not written.
func isReport(name string) (bool, error) {
	info, err := os.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return false, err
	}
	file, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, 32))
	begins := strings.ReplaceAll(string(text), "\n", "")
	return begins == "" || begins == "[]" || strings.HasPrefix(begins, `[{"what":`) || strings.HasPrefix(begins, "what,line,name,"), err
}

func (r *moveReport) add(no directory.Refused) error {
	r.n++
	if r.n <= toldRefusals {
		place := ""
		if no.Line > 0 {
			place = fmt.Sprintf("line %d: ", no.Line)
		}
		fmt.Fprintf(r.to, "refused: %s%s %q: %s (%s)\n", place, no.What, no.Name, no.Why, no.Code)
	}
	if r.file == nil {
		return nil
	}
	if r.table != nil {
		return r.table.Line(no.What, strconv.Itoa(no.Line), no.Name, no.Code, no.Why)
	}
	text, err := json.Marshal(no)
	if err != nil {
		return err
	}
	before := "\n"
	if r.n > 1 {
		before = ",\n"
	}
	_, err = r.text.WriteString(before + string(text))
	return err
}

func (r *moveReport) close() (err error) {
	if r.n > toldRefusals {
		fmt.Fprintf(r.to, "… and %d more", r.n-toldRefusals)
		if r.file == nil {
			fmt.Fprint(r.to, "; --report FILE has all of them")
		}
		fmt.Fprintln(r.to)
	}
	if r.file == nil {
		return nil
	}
	if r.table != nil {
		err = r.table.Flush()
	} else {
		_, err = r.text.WriteString("\n]\n")
	}
	return errors.Join(err, r.text.Flush(), r.file.Close())
}

// listed returns the names in two lines, of which each fits a terminal.
func listed(names []string) string {
	half := len(names) / 2
	return "  " + strings.Join(names[:half], ", ") + ",\n  " + strings.Join(names[half:], ", ")
}
