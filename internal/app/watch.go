package app

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settleTime is how long after a change of a file the file is read.
const settleTime = 200 * time.Millisecond

// watch calls changed on SIGHUP and when the content of the file has changed, until ctx ends.
// It watches the directory, because editors and Kubernetes put another file in the place of
// the old one.
func watch(ctx context.Context, file string, hangup <-chan os.Signal, logger *slog.Logger, changed func()) {
	var events <-chan fsnotify.Event
	var failures <-chan error
	if file != "" {
		w, err := fsnotify.NewWatcher()
		if err == nil {
			defer w.Close()
			err = w.Add(filepath.Dir(file))
			events, failures = w.Events, w.Errors
		}
		if err != nil {
			logger.Warn("changes of the configuration file will not be noticed; send SIGHUP", "err", err)
		}
	}
	was := read(file)
	var settled <-chan time.Time // nil: nothing has happened
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			changed()
		case <-events:
			if settled == nil {
				settled = time.After(settleTime)
			}
		case err := <-failures:
			logger.Warn("changes of the configuration file may go unnoticed; send SIGHUP", "err", err)
		case <-settled:
			settled = nil
			if is := read(file); is != was {
				was = is
				changed()
			}
		}
	}
}

// read returns the sum of what is in the file.
func read(file string) [sha256.Size]byte {
	content, err := os.ReadFile(file)
	if err != nil {
		return [sha256.Size]byte{} // who loads it will say why
	}
	return sha256.Sum256(content)
}
