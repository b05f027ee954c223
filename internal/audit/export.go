package audit

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/watchword-auth/watchword/internal/csvfile"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
)

// A Form is how a file writes events.
type Form string

const (
	CSV       Form = "csv"    // a table with a line of headings (package csvfile)
	JSONLines Form = "jsonl"  // an event in each line, as the API writes it
	Syslog    Form = "syslog" // an event in each line, as a message of syslog (RFC 5424)
)

// timeFormat is that of the API: RFC 3339 in UTC with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z"

// columns are the names of what Writer writes of an event, in order.
var columns = []string{"id", "at", "actor", "action", "target", "outcome", "address", "detail"}

// A Writer writes events into a file.
type Writer struct {
	table  *csvfile.Writer // one of the three is not nil
	lines  *json.Encoder
	syslog io.Writer
}

// NewWriter makes a Writer, and writes the headings of a table.
func NewWriter(w io.Writer, form Form) (*Writer, error) {
	switch form {
	case CSV:
		table := csvfile.NewWriter(w)
		return &Writer{table: table}, table.Line(columns...)
	case JSONLines:
		lines := json.NewEncoder(w)
		lines.SetEscapeHTML(false)
		return &Writer{lines: lines}, nil
	case Syslog:
		return &Writer{syslog: w}, nil
	}
	return nil, problem.New(problem.Invalid, "invalid_form", "a file of the audit trail has the form %s, %s or %s", CSV, JSONLines, Syslog)
}

// Write writes events. When it returns nil, all of them are in the file.
func (w *Writer) Write(events []store.AuditEvent) error {
	for _, e := range events {
		at := e.At.UTC().Format(timeFormat)
		var err error
		switch {
		case w.table != nil:
			err = w.table.Line(e.ID, at, e.Actor, e.Action, e.Target, e.Outcome, e.Address, e.Detail)
		case w.syslog != nil:
			_, err = io.WriteString(w.syslog, syslogLine(e))
		default:
			err = w.lines.Encode(struct {
				ID      string `json:"id"`
				At      string `json:"at"`
				Actor   string `json:"actor"`
				Action  string `json:"action"`
				Target  string `json:"target"`
				Outcome string `json:"outcome"`
				Address string `json:"address"`
				Detail  string `json:"detail"`
			}{e.ID, at, e.Actor, e.Action, e.Target, e.Outcome, e.Address, e.Detail})
		}
		if err != nil {
			return fmt.Errorf("audit: export: %w", err)
		}
	}
	if w.table != nil {
		return w.table.Flush()
	}
	return nil
}
