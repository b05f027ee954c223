package audit

import (
	"strconv"
	"strings"

	"github.com/watchword-auth/watchword/internal/store"
)

// syslogID names the structured data of an event. 32473 is the enterprise number of examples
// (RFC 5612): Watchword has none of its own.
const syslogID = "watchword@32473"

// syslogFacility is "log audit" (RFC 5424 §6.2.1).
const syslogFacility = 13

// syslogLine returns an event as a message of syslog (RFC 5424) in a line of its own: its action is
// the MSGID, all its fields are structured data, and the message repeats them for people. It names
// no host, because an event is of the whole deployment.
func syslogLine(e store.AuditEvent) string {
	severity := 4 // warning
	switch e.Outcome {
	case OK:
		severity = 6 // informational
	case Denied:
		severity = 5 // notice
	}
	var b strings.Builder
	b.WriteString("<" + strconv.Itoa(8*syslogFacility+severity) + ">1 " + e.At.UTC().Format(timeFormat) + " - watchword - " + messageID(e.Action) + " [" + syslogID)
	for _, p := range [...]struct{ name, value string }{
		{"id", e.ID}, {"action", e.Action}, {"outcome", e.Outcome}, {"actor", e.Actor}, {"target", e.Target}, {"address", e.Address}, {"detail", e.Detail},
	} {
		if p.value != "" {
			b.WriteString(" " + p.name + `="` + paramValue.Replace(oneLine(p.value)) + `"`)
		}
	}
	// A message in UTF-8 begins with a byte order mark (§6.4).
	b.WriteString("] \uFEFF" + oneLine(e.Action) + ": " + oneLine(e.Outcome))
	if e.Detail != "" {
		b.WriteString(", " + oneLine(e.Detail))
	}
	b.WriteByte('\n')
	return b.String()
}

// paramValue escapes what ends a value or begins an escape (RFC 5424 §6.3.3).
var paramValue = strings.NewReplacer(`"`, `\"`, `\`, `\\`, `]`, `\]`)

// oneLine is a text without what could forge a line. Events that a replica has written have none
// of it; whoever writes the database may.
func oneLine(s string) string { return printable(s, len(s)) }

// messageID is an action as a MSGID: up to 32 printable characters of US-ASCII without spaces.
func messageID(action string) string {
	id := strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, action)
	if id == "" {
		return "-"
	}
	return id[:min(len(id), 32)]
}
