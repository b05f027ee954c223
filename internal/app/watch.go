package app

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settleTime is how long after a change of a file the file is read, and for how long it must
// then stay the same, so that a file which is still being written is not taken for a whole one.
const settleTime = 200 * time.Millisecond

// lookEvery is how often files are read whose change may have gone unnoticed: that of a file
// to which a link in another directory leads, or on a network's file system.
const lookEvery = 5 * time.Second

// watch calls changed on SIGHUP and when the content of one of the files has changed and stays
// as it is for settleTime, until ctx ends. It watches the directories, because editors and Kubernetes put another file in
// the place of the old one. It calls changed once at the beginning.
func watch(ctx context.Context, files []string, hangup <-chan os.Signal, logger *slog.Logger, changed func()) {
	var events <-chan fsnotify.Event
	var failures <-chan error
	var look <-chan time.Time
	if len(files) > 0 {
		w, err := fsnotify.NewWatcher()
		if err == nil {
			defer w.Close()
			for _, file := range files {
				err = cmp.Or(w.Add(filepath.Dir(file)), err)
			}
			events, failures = w.Events, w.Errors
		}
		if err != nil {
			logger.Warn("changes of a file will not be noticed at once", "err", err)
		}
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		look = tick.C
	}
	var seen content
	var settled <-chan time.Time // nil: nothing has happened
	compare := func() {
		switch seen.is(read(files)) {
		case contentNew:
			settled = time.After(settleTime)
		case contentTaken:
			changed()
		}
	}
	compare() // they may have changed since the configuration was loaded
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
			logger.Warn("changes of a file may not be noticed at once", "err", err)
		case <-settled:
			settled = nil
			compare()
		case <-look:
			compare()
		}
	}
}

// content is that of files that are watched.
type content struct {
	taken [sha256.Size]byte // the last one that was taken over
	last  [sha256.Size]byte // as it was found the last time
}

// found is what is to be done with a content.
type found int

const (
	contentOld   found = iota // nothing
	contentNew                // it is looked at again: somebody may still be writing
	contentTaken              // it is taken over
)

// is says what is to be done with the content that was found now.
func (c *content) is(now [sha256.Size]byte) found {
	last := c.last
	c.last = now
	switch now {
	case c.taken:
		return contentOld
	case last:
		c.taken = now
		return contentTaken
	default:
		return contentNew
	}
}

// read returns the sum of what is in the files. Package config says what is wrong with one
// that is none.
func read(files []string) [sha256.Size]byte {
	h := sha256.New()
	for _, file := range files {
		var content []byte
		info, err := os.Stat(file)
		if err == nil && info.Mode().IsRegular() { // a pipe would have to be waited for
			content, err = os.ReadFile(file)
		}
		fmt.Fprintf(h, "%d %v\n", len(content), err) // an error is a change, too
		h.Write(content)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
