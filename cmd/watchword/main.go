// Command watchword is the authentication and token service, and the tools of its
// operator. `watchword -h` says what it can do.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/problem"
)

// Exit codes.
const (
	exitFailed = 1 // what was asked could not be done
	exitUsage  = 2 // it could not be understood
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	told := make(chan os.Signal, 1)
	signal.Notify(told, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-told
		signal.Stop(told) // first: as soon as anything shows that it ends, a second signal ends it at once
		cancel()
	}()
	if err := execute(ctx); err != nil {
		os.Exit(report(os.Stderr, err))
	}
}

// report says what went wrong, in words for the operator, and returns the exit
// code. The operator may read causes; clients may not.
func report(w io.Writer, err error) int {
	var usage *usageError
	var client *problem.Error
	var invalid *config.Error
	switch {
	case errors.As(err, &usage):
		fmt.Fprintf(w, "watchword: %v\n%s\n", err, usage.hint)
		return exitUsage
	case errors.As(err, &invalid):
		fmt.Fprintf(w, "watchword: the configuration cannot be used:\n  %s\n", strings.ReplaceAll(invalid.Error(), "\n", "\n  "))
	case errors.As(err, &client):
		// What stands before it says what it is about.
		about, ok := strings.CutSuffix(err.Error(), client.Error())
		if !ok {
			about = ""
		}
		fmt.Fprintf(w, "watchword: %s%s\n", about, client.Detail)
		if client.Cause != nil && (client.Kind == problem.Internal || client.Kind == problem.Unavailable) {
			fmt.Fprintf(w, "  because: %v\n", client.Cause)
		}
	default:
		fmt.Fprintf(w, "watchword: %v\n", err)
	}
	return exitFailed
}

// A usageError is a command line that cannot be understood.
type usageError struct {
	error
	hint string // where to read more
}
