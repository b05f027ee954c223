package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/app"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/operator"
)

// with runs an offline command on the configured database.
func with(cmd *cobra.Command, do func(ctx context.Context, p *operator.Parts, cfg *config.Config) error) error {
	return withOpened(cmd, operator.Open, do)
}

// reading is with for a command that only reads: it makes no database where there
// is none.
func reading(cmd *cobra.Command, do func(ctx context.Context, p *operator.Parts, cfg *config.Config) error) error {
	return withOpened(cmd, operator.OpenExisting, do)
}

func withOpened(
	cmd *cobra.Command,
	open func(context.Context, *config.Config, *slog.Logger) (*operator.Parts, error),
	do func(ctx context.Context, p *operator.Parts, cfg *config.Config) error,
) (err error) {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	p, err := open(cmd.Context(), cfg, app.NewLogger(quiet, os.Stderr))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	return do(cmd.Context(), p, cfg)
}

// quiet is how offline commands log: warnings for the operator, and nothing that the
// command's own output says.
var quiet = config.Log{Level: "warn", Format: "text"}

// silent is how a command logs whose output says all that there is to say.
var silent = config.Log{Level: "error", Format: "text"}
