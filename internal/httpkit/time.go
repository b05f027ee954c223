package httpkit

import (
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// TimeFormat is how answers, and what the commands and the log write as JSON, have a moment
// in UTC: RFC 3339 with milliseconds, also when they are zeros. What is finer is dropped.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// A Time is a moment in an answer.
type Time struct{ time.Time }

// At is the moment as answers have it.
func At(t time.Time) Time { return Time{t} }

// MarshalJSON writes TimeFormat.
func (t Time) MarshalJSON() ([]byte, error) {
	return t.UTC().AppendFormat(nil, `"`+TimeFormat+`"`), nil
}

// Schema describes what MarshalJSON writes.
func (Time) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: "string", Format: "date-time", Examples: []any{"2026-11-29T12:00:00.000Z"}}
}
