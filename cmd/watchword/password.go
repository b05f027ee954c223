package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// maxInput bounds what is read from standard input.
const maxInput = 64 << 10

// readPassword asks for a new password on the terminal, twice and without showing
// it, or takes it from standard input when that is something else. A password is
// never an argument: other users of the machine could read it.
func readPassword(cmd *cobra.Command) (string, error) {
	return readSecret(cmd, "password", true)
}

// readSecret is readPassword for what is called so; one that is not new is asked
// for once.
func readSecret(cmd *cobra.Command, name string, isNew bool) (string, error) {
	stdin := int(os.Stdin.Fd())
	if !term.IsTerminal(stdin) {
		text, err := readInput(cmd.InOrStdin())
		return strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r"), err
	}
	ask := func(prompt string) (string, error) {
		fmt.Fprint(cmd.ErrOrStderr(), prompt)
		secret, err := term.ReadPassword(stdin)
		fmt.Fprintln(cmd.ErrOrStderr())
		if err != nil {
			return "", fmt.Errorf("the %s cannot be read: %w", name, err)
		}
		return string(secret), nil
	}
	secret, err := ask(strings.ToUpper(name[:1]) + name[1:] + ": ")
	if err != nil || !isNew {
		return secret, err
	}
	again, err := ask("Once more: ")
	if err != nil {
		return "", err
	}
	if again != secret {
		return "", fmt.Errorf("the two %ss differ; nothing was changed", name)
	}
	return secret, nil
}

// readInput reads a small text to its end.
func readInput(r io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err != nil {
		return "", fmt.Errorf("standard input cannot be read: %w", err)
	}
	if len(text) > maxInput {
		return "", fmt.Errorf("standard input is longer than %d KiB", maxInput>>10)
	}
	return string(text), nil
}
