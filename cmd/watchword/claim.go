package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/store"
)

func newClaim() *cobra.Command {
	return group(&cobra.Command{
		Use:   "claim",
		Short: "Add, list, show, change and remove claims",
		Long: `Add, list, show, change and remove claims. A claim is one right: a value under a
short name in the token. Values of one short name are joined with a comma:
"log":"r,w". A claim is named by name or id, and reaches users through groups.`,
		Example: `  watchword claim add "Log reader" --short-name log --value r
  watchword group add Support --claim "Log reader"`,
	}, newClaimAdd(), newClaimList(), newClaimShow(), newClaimSet(), newClaimRemove())
}

func newClaimAdd() *cobra.Command {
	var n directory.NewClaim
	cmd := &cobra.Command{
		Use:     "add NAME",
		Short:   "Add a claim",
		Long:    "Add a claim.",
		Example: `  watchword claim add "Log reader" --short-name log --value r`,
		Args:    arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needAll(cmd, "short-name", "value"); err != nil {
				return err
			}
			n.Name = args[0]
			return with(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				c, err := p.Directory.CreateClaim(ctx, directory.System(), n)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "Added the claim %s (%s).\n", c.Name, c.ID)
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.ShortName, "short-name", "", "`name` in the token")
	f.StringVar(&n.Value, "value", "", "`value` in the token")
	return cmd
}

func newClaimList() *cobra.Command {
	var prefix string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List claims",
		Long:    "List claims in the order of their names.",
		Example: "  watchword claim list\n  watchword claim list --prefix log",
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return reading(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				t := newTable(cmd.OutOrStdout(), "NAME", "SHORT NAME", "VALUE", "ID")
				err := each(ctx, prefix, p.Directory.Claims, func(c store.Claim) { t.row(c.Name, c.ShortName, c.Value, c.ID) })
				if err != nil {
					return err
				}
				return t.flush()
			})
		},
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "only names that begin with `text`")
	return cmd
}

func newClaimShow() *cobra.Command {
	return &cobra.Command{
		Use:     "show CLAIM",
		Short:   "Show a claim, with the groups that give it",
		Long:    "Show a claim, and the groups that give it.",
		Example: `  watchword claim show "Log reader"`,
		Args:    arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return reading(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				c, err := p.Directory.Claim(ctx, directory.System(), args[0])
				if err != nil {
					return err
				}
				groups, err := p.Store.GroupsWithClaim(ctx, c.ID)
				if err != nil {
					return err
				}
				t := newTable(cmd.OutOrStdout(), "NAME", c.Name)
				t.row("ID", c.ID)
				t.row("IN TOKENS", c.ShortName+"="+c.Value)
				t.row("CREATED", when(c.CreatedAt))
				t.row("UPDATED", when(c.UpdatedAt))
				for _, g := range groups {
					t.row("GROUP", g.Name)
				}
				return t.flush()
			})
		},
	}
}

func newClaimSet() *cobra.Command {
	var name, shortName, value string
	cmd := &cobra.Command{
		Use:   "set CLAIM",
		Short: "Change a claim",
		Long: `Change a claim. Only what is named changes. When the short name or the value
changes, the tokens of users who have the claim are revoked.`,
		Example: `  watchword claim set "Log reader" --value read`,
		Args:    arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needAny(cmd, "name", "short-name", "value"); err != nil {
				return err
			}
			return with(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				_, err := p.Directory.UpdateClaim(ctx, directory.System(), args[0], directory.ClaimPatch{
					Name: ifSet(cmd, "name", &name), ShortName: ifSet(cmd, "short-name", &shortName), Value: ifSet(cmd, "value", &value),
				})
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), "Changed the claim.")
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "another `name`")
	f.StringVar(&shortName, "short-name", "", "another `name` in the token")
	f.StringVar(&value, "value", "", "another `value` in the token")
	return cmd
}

func newClaimRemove() *cobra.Command {
	return &cobra.Command{
		Use:     "remove CLAIM",
		Short:   "Remove a claim",
		Long:    "Remove a claim from all groups, and revoke the tokens of users who have it.",
		Example: `  watchword claim remove "Log reader"`,
		Args:    arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return with(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				if err := p.Directory.DeleteClaim(ctx, directory.System(), args[0]); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), "Removed the claim.")
				return nil
			})
		},
	}
}
