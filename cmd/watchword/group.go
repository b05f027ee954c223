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

func newGroup() *cobra.Command {
	return group(&cobra.Command{
		Use:   "group",
		Short: "Add, list, show, change and remove groups",
		Long: `Add, list, show, change and remove groups. A group gives its claims to its members.
It is named by name or id. "watchword user set" changes its members.`,
		Example: `  watchword group add Support --claim "Log reader"
  watchword group set Support --add-claim "Log writer"
  watchword user set alice --add-group Support`,
	}, newGroupAdd(), newGroupList(), newGroupShow(), newGroupSet(), newGroupRemove())
}

func newGroupAdd() *cobra.Command {
	var n directory.NewGroup
	cmd := &cobra.Command{
		Use:     "add NAME",
		Short:   "Add a group",
		Long:    "Add a group.",
		Example: `  watchword group add Support --claim "Log reader" --claim "Log writer"`,
		Args:    arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n.Name = args[0]
			return with(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				g, err := p.Directory.CreateGroup(ctx, directory.System(), n)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "Added the group %s (%s).\n", g.Name, g.ID)
				return nil
			})
		},
	}
	cmd.Flags().StringArrayVar(&n.Claims, "claim", nil, "`claim` that it gives; may be repeated")
	return cmd
}

func newGroupList() *cobra.Command {
	var prefix string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List groups",
		Long:    "List groups in the order of their names.",
		Example: "  watchword group list\n  watchword group list --prefix sup",
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return reading(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				t := newTable(cmd.OutOrStdout(), "NAME", "ID")
				err := each(ctx, prefix, p.Directory.Groups, func(g store.Group) { t.row(g.Name, g.ID) })
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

func newGroupShow() *cobra.Command {
	return &cobra.Command{
		Use:     "show GROUP",
		Short:   "Show a group, with claims and members",
		Long:    "Show a group, the claims that it gives, and its members.",
		Example: "  watchword group show Support",
		Args:    arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return reading(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				d, system := p.Directory, directory.System()
				g, err := d.Group(ctx, system, args[0])
				if err != nil {
					return err
				}
				claims, err := d.ClaimsOfGroup(ctx, system, g.ID)
				if err != nil {
					return err
				}
				t := newTable(cmd.OutOrStdout(), "NAME", g.Name)
				t.row("ID", g.ID)
				t.row("CREATED", when(g.CreatedAt))
				t.row("UPDATED", when(g.UpdatedAt))
				for _, c := range claims {
					t.row("CLAIM", fmt.Sprintf("%s (%s=%s)", c.Name, c.ShortName, c.Value))
				}
				members := func(ctx context.Context, actor directory.Actor, page directory.Page) (directory.List[store.User], error) {
					return d.MembersOfGroup(ctx, actor, g.ID, page)
				}
				if err := each(ctx, "", members, func(u store.User) { t.row("MEMBER", u.Username) }); err != nil {
					return err
				}
				return t.flush()
			})
		},
	}
}

func newGroupSet() *cobra.Command {
	var name string
	var add, remove []string
	cmd := &cobra.Command{
		Use:   "set GROUP",
		Short: "Change a group",
		Long: `Change a group. Only what is named changes. The changes are made one after the
other, in the order of the flags below; when one cannot be made, those before it
stay. Members who lose a claim get it no more from the next renewal on, and their
tokens are revoked.`,
		Example: `  watchword group set Support --name Helpdesk
  watchword group set Support --add-claim "Log reader" --remove-claim "Log writer"`,
		Args: arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needAny(cmd, "name", "add-claim", "remove-claim"); err != nil {
				return err
			}
			return with(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				d, system := p.Directory, directory.System()
				g, err := d.Group(ctx, system, args[0])
				if err != nil {
					return err
				}
				if patch := (directory.GroupPatch{Name: ifSet(cmd, "name", &name)}); patch.Name != nil {
					if _, err := d.UpdateGroup(ctx, system, g.ID, patch); err != nil {
						return err
					}
				}
				for _, c := range add {
					if err := d.AddClaim(ctx, system, g.ID, c); err != nil {
						return err
					}
				}
				for _, c := range remove {
					if err := d.RemoveClaim(ctx, system, g.ID, c); err != nil {
						return err
					}
				}
				fmt.Fprintln(cmd.OutOrStdout(), "Changed the group.")
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&name, "name", "", "another `name`")
	f.StringArrayVar(&add, "add-claim", nil, "`claim` to give; may be repeated")
	f.StringArrayVar(&remove, "remove-claim", nil, "`claim` to give no more; may be repeated")
	return cmd
}

func newGroupRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "remove GROUP",
		Short: "Remove a group",
		Long: `Remove a group and revoke the tokens of its members, who log in or renew without
its claims.`,
		Example: "  watchword group remove Support",
		Args:    arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return with(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				if err := p.Directory.DeleteGroup(ctx, directory.System(), args[0]); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), "Removed the group.")
				return nil
			})
		},
	}
}
