package audit

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
)

// EntriesOf returns how many events a seal has.
func EntriesOf(t *testing.T, s store.AuditSeal) int {
	t.Helper()
	l, err := parseLink(s.Content)
	if err != nil {
		t.Fatal(err)
	}
	return len(l.entries)
}

func someLink() link {
	return link{
		seq: 7, at: time.UnixMicro(1234567890123456).UTC(), first: 3, swept: time.UnixMicro(99).UTC(),
		from: "", through: "019ac2f8-3b5e-7000-8000-5a2b3c4d5e6f", previous: digest{1, 2, 3},
		entries: []entry{
			{"019ac2f8-3b5e-7000-8000-5a2b3c4d5e6f", digest{4}}, {"an odd one", digest{5}}, {"", digest{6}},
			{"019AC2F8-3b5e-7000-8000-5a2b3c4d5e6f", digest{7}}, // it is another id
		},
	}
}

func TestLinkIsReadAsItWasWritten(t *testing.T) {
	for _, l := range []link{someLink(), {seq: 1, entries: []entry{}}} {
		got, err := parseLink(l.encode())
		if err != nil || !reflect.DeepEqual(got, l) {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

func TestLinkThatIsNone(t *testing.T) {
	whole := someLink().encode()
	for n := range whole {
		if _, err := parseLink(whole[:n]); err == nil {
			t.Errorf("the first %d bytes are taken for a seal", n)
		}
	}
	if _, err := parseLink(append(bytes.Clone(whole), 0)); err == nil {
		t.Error("something follows")
	}
}

// FuzzLink: what a database says is a seal stops nobody, and has one form.
func FuzzLink(f *testing.F) {
	f.Add(someLink().encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		l, err := parseLink(content)
		if err == nil && len(l.entries) > maxSealed {
			t.Errorf("%d entries", len(l.entries))
		}
	})
}
