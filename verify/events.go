package verify

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// maxEvent bounds an event, in bytes. The server's have a few hundred.
const maxEvent = 64 << 10

// An event is one of a text/event-stream (WHATWG HTML, §9.2). Its id is not needed, since
// entries carry their number.
type event struct {
	name string
	data []byte
}

// An eventReader reads events.
type eventReader struct{ lines *bufio.Scanner }

func newEventReader(r io.Reader) *eventReader {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), maxEvent)
	return &eventReader{lines}
}

// next returns the next event, or io.ErrUnexpectedEOF at the end of the stream. An event
// that is cut off in the middle is dropped.
func (r *eventReader) next() (event, error) {
	var e event
	for r.lines.Scan() { // also takes a carriage return from the end
		line := r.lines.Bytes()
		if len(line) == 0 {
			if len(e.data) > 0 {
				return e, nil
			}
			e = event{}
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "event":
			e.name = string(value)
		case "data":
			if len(e.data)+len(value) > maxEvent {
				return event{}, errors.New("an event is too long")
			}
			if len(e.data) > 0 {
				e.data = append(e.data, '\n')
			}
			e.data = append(e.data, value...)
		}
	}
	if err := r.lines.Err(); err != nil {
		return event{}, err
	}
	return event{}, io.ErrUnexpectedEOF
}
