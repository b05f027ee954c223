package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/token"
)

func newToken() *cobra.Command {
	return group(&cobra.Command{
		Use:     "token",
		Short:   "Look into access tokens",
		Long:    "Look into access tokens.",
		Example: "  watchword token inspect < token.txt",
	}, newTokenInspect())
}

// errNotValid is the status of a token that is wrong; what is wrong stands in the
// report already.
var errNotValid = errors.New("the token is not valid")

func newTokenInspect() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect [FILE]",
		Short: "Show what a token says and what is wrong with it",
		Long: `Show what an access token says, and everything that is wrong with it, in words: by
the configured issuer, audience and signing secrets, the signing keys in the database,
and the revocation log.

The token is read from FILE or from standard input, so that it does not stand in
the shell's history. It ends with the status 1 if the token is not valid.`,
		Example: `  watchword token inspect < token.txt
  watchword token inspect token.txt`,
		Args: arguments(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := cmd.InOrStdin()
			if len(args) == 1 {
				file, err := os.Open(args[0])
				if err != nil && looksLikeToken(args[0]) {
					return errors.New("this is a token and not a file; give it on standard input, so that it does not stand in the shell's history")
				}
				if err != nil {
					return err
				}
				defer file.Close()
				in = file
			}
			text, err := readInput(in)
			if err != nil {
				return err
			}
			return reading(cmd, func(ctx context.Context, p *operator.Parts, cfg *config.Config) error {
				report, err := p.InspectToken(ctx, cfg, strings.TrimSpace(text))
				if err != nil {
					return err
				}
				return printReport(cmd, report)
			})
		},
	}
}

// looksLikeToken is for what must not be repeated on the terminal.
func looksLikeToken(arg string) bool {
	return strings.HasPrefix(arg, "eyJ") || strings.HasPrefix(arg, session.RefreshPrefix) || strings.Count(arg, ".") == 2 && len(arg) > 100
}

func printReport(cmd *cobra.Command, report token.Report) error {
	out := cmd.OutOrStdout()
	for _, part := range []struct {
		name    string
		members map[string]any
	}{{"header", report.Header}, {"claims", report.Claims}} {
		if part.members == nil {
			continue
		}
		text, err := json.MarshalIndent(part.members, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: %s\n", part.name, printable(text))
	}
	if report.Valid {
		fmt.Fprintln(out, "The token is valid.")
		return nil
	}
	for _, finding := range report.Findings {
		fmt.Fprintf(out, "- %s\n", finding)
	}
	return errNotValid
}

// printable escapes what a terminal would obey or hide, since the maker of the token
// may have meant it to. What JSON leaves of that stands in strings, where an escape
// means the same.
func printable(text []byte) string {
	var b strings.Builder
	for _, c := range string(text) {
		if c == '\n' || unicode.IsPrint(c) {
			b.WriteRune(c)
			continue
		}
		for _, half := range utf16.Encode([]rune{c}) {
			fmt.Fprintf(&b, `\u%04x`, half)
		}
	}
	return b.String()
}
