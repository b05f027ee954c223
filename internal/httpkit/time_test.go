package httpkit

import (
	"encoding/json"
	"testing"
	"time"
)

func TestMomentsHaveOneForm(t *testing.T) {
	east := time.FixedZone("", 9*3600)
	for want, at := range map[string]time.Time{
		`{"at":"2026-11-29T12:00:00.000Z"}`: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC),
		`{"at":"2026-11-28T20:30:00.120Z"}`: time.Date(2026, 11, 29, 5, 30, 0, 120_999_999, east),
		`{}`:                                {},
	} {
		var v struct {
			At Time `json:"at,omitzero"`
		}
		v.At = At(at)
		got, err := json.Marshal(v)
		if err != nil || string(got) != want {
			t.Errorf("%v: %s, %v; want %s", at, got, err, want)
		}
		var back struct{ At Time }
		if err := json.Unmarshal(got, &back); err != nil || !back.At.Equal(at.Truncate(time.Millisecond)) {
			t.Errorf("%s is read as %v, %v", got, back.At, err)
		}
	}
}
