package testenv

import (
	"bytes"
	"sync"
)

// A Log is what a replica or a process writes, to be read while it writes.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Tail is the last few lines, for the message of a test that fails.
func (l *Log) Tail() string {
	s := l.String()
	return s[max(0, len(s)-3000):]
}
