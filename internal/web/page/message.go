package page

import (
	"math"
	"time"

	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/problem"
)

// A Message is something that a page says to a person.
type Message struct {
	Kind       FlashKind
	Text       string
	Code       string        // of the problem; empty: it is none
	Status     int           // of the answer
	RetryAfter time.Duration // zero: that is not known
}

// Problem returns what a person may read of an error: the text error.<code> in their language, or
// else the problem's own detail. If there is a time after which it may be tried again, the text
// says so, and so does the answer (Retry-After).
func (v *Visit) Problem(err error) Message {
	e, status := httpkit.ProblemOf(err)
	m := Message{Kind: Failure, Code: e.Code, Text: sentence(e.Detail), Status: status}
	if text, ok := v.lang.lookup("error." + e.Code); ok {
		m.Text = text
	}
	if e.Kind == problem.TooMany || e.Kind == problem.Unavailable {
		m.RetryAfter = max(e.RetryAfter, time.Second)
		v.Writer.Header().Set("Retry-After", httpkit.RetryAfter(m.RetryAfter))
		m.Text += " " + v.T("error.retry", "time", v.Duration(m.RetryAfter))
	}
	return m
}

// role is how soon a screen reader says it.
func (m Message) role() string {
	if m.Kind == Failure {
		return "alert"
	}
	return "status"
}

// sentence gives the detail of a problem the form of a sentence.
func sentence(s string) string {
	if s == "" {
		return s
	}
	if s[0] >= 'a' && s[0] <= 'z' {
		s = string(s[0]-'a'+'A') + s[1:]
	}
	if last := s[len(s)-1]; last != '.' && last != '!' && last != '?' && last != ')' {
		s += "."
	}
	return s
}

// Duration returns a length of time in words, rounded up, in the visitor's language.
func (v *Visit) Duration(d time.Duration) string {
	in := func(unit time.Duration) int { return int(math.Ceil(d.Seconds() / unit.Seconds())) }
	switch {
	case in(time.Second) == 1:
		return v.T("duration.second")
	case in(time.Second) <= 90:
		return v.T("duration.seconds", "n", in(time.Second))
	case in(time.Minute) <= 90:
		return v.T("duration.minutes", "n", in(time.Minute))
	case in(time.Hour) <= 36:
		return v.T("duration.hours", "n", in(time.Hour))
	}
	return v.T("duration.days", "n", v.Number(in(24*time.Hour)))
}
