package main

import (
	"errors"
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
	stdin := int(os.Stdin.Fd())
	if !term.IsTerminal(stdin) {
		text, err := readInput(cmd.InOrStdin())
		return strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r"), err
	}
	ask := func(prompt string) (string, error) {
		fmt.Fprint(cmd.ErrOrStderr(), prompt)
		password, err := term.ReadPassword(stdin)
		fmt.Fprintln(cmd.ErrOrStderr())
		return string(password), err
	}
	password, err := ask("Password: ")
	if err != nil {
		return "", fmt.Errorf("the password cannot be read: %w", err)
	}
	again, err := ask("Once more: ")
	if err != nil {
		return "", fmt.Errorf("the password cannot be read: %w", err)
	}
	if again != password {
		return "", errors.New("the two passwords differ; nothing was changed")
	}
	return password, nil
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
