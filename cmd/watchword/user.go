package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/store"
)

func newUser() *cobra.Command {
	return group(&cobra.Command{
		Use:   "user",
		Short: "Add, list, show, change, remove, check and recover users",
		Long: `Add, list, show, change, remove, check and recover users. A user is named by username or
id. A user who loses a right, the password, a second factor or the account has to log in
again: the user's tokens are revoked.`,
		Example: `  watchword user add alice --admin
  watchword user list
  watchword user set alice --password
  watchword user recover alice
  watchword user remove alice`,
	}, newUserAdd(), newUserList(), newUserShow(), newUserSet(), newUserRemove(), newUserCheck(), newUserRecover(), newUserResetFactors())
}

func newUserAdd() *cobra.Command {
	var n directory.NewUser
	var noPassword bool
	cmd := &cobra.Command{
		Use:   "add USERNAME",
		Short: "Add a user",
		Long: `Add a user. The password is asked for on the terminal, or read from standard input.
With --admin the user may do everything.`,
		Example: `  watchword user add alice --admin
  watchword user add bob --email bob@example.org --group Support --group Sales
  watchword user add robot --group Robots < /run/secrets/robot-password`,
		Args: arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n.Username = args[0]
			return with(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) (err error) {
				if !noPassword {
					if n.Password, err = readPassword(cmd); err != nil {
						return err
					}
					if n.Password == "" {
						return errors.New("the password is empty; give one, or say --no-password for a user who cannot log in with one")
					}
				}
				u, err := p.Directory.CreateUser(ctx, directory.System(), n)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "Added the user %s (%s).\n", u.Username, u.ID)
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.Email, "email", "", "e-mail `address`")
	f.BoolVar(&n.EmailVerified, "email-verified", false, "the address is known to be the user's")
	f.StringVar(&n.FirstName, "first-name", "", "first `name`")
	f.StringVar(&n.LastName, "last-name", "", "last `name`")
	f.StringArrayVar(&n.Groups, "group", nil, "`group` to be a member of; may be repeated")
	f.BoolVar(&n.Administrator, "admin", false, "make an administrator")
	f.BoolVar(&n.Disabled, "disable", false, "may not log in until enabled")
	f.BoolVar(&noPassword, "no-password", false, "cannot log in with a password")
	f.SetNormalizeFunc(disableFlag)
	return cmd
}

func newUserList() *cobra.Command {
	var prefix string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List users",
		Long:    "List users in the order of their names.",
		Example: "  watchword user list\n  watchword user list --prefix al",
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return reading(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				t := newTable(cmd.OutOrStdout(), "USERNAME", "NAME", "EMAIL", "STATE", "ID")
				err := each(ctx, prefix, p.Directory.Users, func(u store.User) {
					t.row(u.Username, fullName(u), u.Email, userState(u), u.ID)
				})
				if err != nil {
					return err
				}
				return t.flush()
			})
		},
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "only usernames that begin with `text`")
	return cmd
}

func newUserShow() *cobra.Command {
	return &cobra.Command{
		Use:     "show USER",
		Short:   "Show a user, with groups, claims and second factors",
		Long:    "Show a user, the groups, the claims that the user's tokens carry, and the second factors.",
		Example: "  watchword user show alice",
		Args:    arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return reading(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				u, err := p.Directory.User(ctx, directory.System(), args[0])
				if err != nil {
					return err
				}
				groups, err := p.Directory.GroupsOf(ctx, directory.System(), u.ID)
				if err != nil {
					return err
				}
				claims, err := p.Directory.ClaimsOf(ctx, u.ID)
				if err != nil {
					return err
				}
				// Without OpenFactors, which may need a storage key: what is shown of a factor is
				// not sealed.
				has, err := p.Factors.Overview(ctx, directory.System(), u.ID)
				if err != nil {
					return err
				}
				t := newTable(cmd.OutOrStdout(), "USERNAME", u.Username)
				t.row("ID", u.ID)
				t.row("NAME", fullName(u))
				t.row("EMAIL", u.Email)
				if u.Email != "" {
					t.row("VERIFIED", map[bool]string{true: "yes", false: "no"}[u.EmailVerified])
				}
				t.row("STATE", userState(u))
				t.row("CREATED", when(u.CreatedAt))
				t.row("UPDATED", when(u.UpdatedAt))
				for _, g := range groups {
					t.row("GROUP", g.Name)
				}
				for _, name := range slices.Sorted(maps.Keys(claims)) {
					t.row("CLAIM", name+"="+claims[name])
				}
				for _, f := range has.Factors {
					t.row("FACTOR", f.Method+", since "+when(f.CreatedAt))
				}
				return t.flush()
			})
		},
	}
}

func newUserSet() *cobra.Command {
	var username, email, first, last string
	var disable, enable, password, verified bool
	var join, leave []string
	cmd := &cobra.Command{
		Use:   "set USER",
		Short: "Change a user",
		Long: `Change a user. Only what is named changes. The changes are made one after the other,
in the order of the flags below; when one cannot be made, those before it stay.`,
		Example: `  watchword user set alice --email alice@example.org
  watchword user set alice --password
  watchword user set bob --disable
  watchword user set bob --add-group Support --remove-group Sales`,
		Args: arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needAny(cmd, "username", "email", "email-verified", "first-name", "last-name", "disable", "enable", "password", "add-group", "remove-group"); err != nil {
				return err
			}
			if disable && enable {
				return misused(cmd, errors.New("--disable and --enable contradict each other"))
			}
			patch := directory.UserPatch{
				Username: ifSet(cmd, "username", &username), Email: ifSet(cmd, "email", &email),
				EmailVerified: ifSet(cmd, "email-verified", &verified), FirstName: ifSet(cmd, "first-name", &first), LastName: ifSet(cmd, "last-name", &last),
			}
			if disable || enable {
				patch.Disabled = &disable
			}
			return with(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				d, system := p.Directory, directory.System()
				u, err := d.User(ctx, system, args[0])
				if err != nil {
					return err
				}
				if patch != (directory.UserPatch{}) {
					if _, err := d.UpdateUser(ctx, system, u.ID, patch); err != nil {
						return err
					}
				}
				if password {
					secret, err := readPassword(cmd)
					if err != nil {
						return err
					}
					if err := d.SetPassword(ctx, system, u.ID, secret); err != nil {
						return err
					}
				}
				for _, g := range join {
					if err := d.AddToGroup(ctx, system, u.ID, g); err != nil {
						return err
					}
				}
				for _, g := range leave {
					if err := d.RemoveFromGroup(ctx, system, u.ID, g); err != nil {
						return err
					}
				}
				fmt.Fprintln(cmd.OutOrStdout(), "Changed the user.")
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&username, "username", "", "another user`name`")
	f.StringVar(&email, "email", "", "e-mail `address`")
	f.BoolVar(&verified, "email-verified", false, "the address is known to be the user's; =false: it is not")
	f.StringVar(&first, "first-name", "", "first `name`")
	f.StringVar(&last, "last-name", "", "last `name`")
	f.BoolVar(&disable, "disable", false, "may not log in; is logged out")
	f.BoolVar(&enable, "enable", false, "may log in again")
	f.BoolVar(&password, "password", false, "another password, asked for or read from standard input")
	f.StringArrayVar(&join, "add-group", nil, "`group` to become a member of; may be repeated")
	f.StringArrayVar(&leave, "remove-group", nil, "`group` to leave; may be repeated")
	f.SetNormalizeFunc(disableFlag)
	return cmd
}

// disableFlag takes --disabled, the older name, for --disable.
func disableFlag(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if name == "disabled" {
		name = "disable"
	}
	return pflag.NormalizedName(name)
}

func newUserRemove() *cobra.Command {
	return &cobra.Command{
		Use:     "remove USER",
		Short:   "Remove a user",
		Long:    "Remove a user, end the user's sessions and revoke the tokens.",
		Example: "  watchword user remove bob",
		Args:    arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return with(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				if err := p.Directory.DeleteUser(ctx, directory.System(), args[0]); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), "Removed the user.")
				return nil
			})
		},
	}
}

func newUserCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "List users who can be taken for each other",
		Long: `List users with an e-mail address, or a username that looks like one, that another user
has, too. New ones are refused; these are from before. It also notes anew what all users
are recognised by, which is needed after a version that does not refuse them has run on
the database.`,
		Example: "  watchword user check",
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return with(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				clashes, err := p.Directory.CheckUsers(ctx, true)
				if err != nil {
					return err
				}
				t := newTable(cmd.OutOrStdout(), "USERNAME", "EMAIL", "ID", "SAME", "AS")
				for _, c := range clashes {
					t.row(c.User.Username, c.User.Email, c.User.ID, c.What, c.Other)
				}
				if len(clashes) == directory.MaxClashes {
					fmt.Fprintf(cmd.ErrOrStderr(), "There may be more than %d.\n", directory.MaxClashes)
				}
				return t.flush()
			})
		},
	}
}

func newUserRecover() *cobra.Command {
	var keep bool
	var valid time.Duration
	cmd := &cobra.Command{
		Use:   "recover USER",
		Short: "Make a recovery token for a user who has lost the password or the second factors",
		Long: `Make a recovery token, with which a user who has lost the password or the second factors
gets back in, once. It sets a new password, removes the second factors, ends the user's
sessions and revokes the user's tokens. A token that was made before is of no use then.
Whoever has the token has the account.

The token is written to standard output, alone, and how it is used to standard error.
Nothing of the user changes before it is used.`,
		Example: `  watchword user recover alice
  watchword user recover alice --keep-factors --valid 15m`,
		Args: arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if valid < mfa.MinRecovery || valid > mfa.MaxRecovery {
				return misused(cmd, fmt.Errorf("--valid: a recovery token is good for %.0f minute to %.0f hours, and not for %s", mfa.MinRecovery.Minutes(), mfa.MaxRecovery.Hours(), valid))
			}
			return with(cmd, func(ctx context.Context, p *operator.Parts, cfg *config.Config) error {
				if err := p.OpenFactors(ctx, cfg); err != nil {
					return err
				}
				r, err := p.Factors.IssueRecovery(ctx, directory.System(), args[0], keep, valid)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "Good once, until %s: POST %s/api/login/recover with recovery_token and new_password.\n", when(r.ExpiresAt), cfg.Server.PublicURL)
				fmt.Fprintln(cmd.OutOrStdout(), r.Token)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&keep, "keep-factors", false, "the second factors stay: the user has lost the password alone")
	cmd.Flags().DurationVar(&valid, "valid", mfa.RecoveryFor, "how `long` the token is good, from 1m to 168h")
	return cmd
}

func newUserResetFactors() *cobra.Command {
	return &cobra.Command{
		Use:   "reset-factors USER",
		Short: "Remove the second factors of a user",
		Long: `Remove all second factors of a user who still has the password, end the user's sessions
and revoke the user's tokens. Then a password is enough, or the user enrols a factor at
the login, as mfa.required says.`,
		Example: "  watchword user reset-factors alice",
		Args:    arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return with(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				if err := p.Factors.Reset(ctx, directory.System(), args[0], ""); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), "Removed the second factors of the user.")
				return nil
			})
		},
	}
}

func fullName(u store.User) string { return strings.TrimSpace(u.FirstName + " " + u.LastName) }

func userState(u store.User) string {
	if u.Disabled {
		return "disabled"
	}
	return "enabled"
}

// ifSet returns the flag's value, or nil if it was not on the command line.
func ifSet[T any](cmd *cobra.Command, flag string, value *T) *T {
	if cmd.Flags().Changed(flag) {
		return value
	}
	return nil
}
