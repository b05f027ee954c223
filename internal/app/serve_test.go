package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
)

// A duration is readable in every format, and a moment is written as the API does.
func TestLogWritesDurationsAndMoments(t *testing.T) {
	at := time.Date(2026, 11, 29, 13, 0, 0, 120_000_000, time.FixedZone("", 3600))
	for format, want := range map[config.LogFormat][]string{
		config.LogJSON: {`"for":"10s"`, `"at":"2026-11-29T12:00:00.120Z"`, `{"time":"20`, `Z","level"`},
		config.LogText: {"for=10s", "at=2026-11-29T12:00:00.120Z"},
	} {
		file, err := os.Create(filepath.Join(t.TempDir(), "log"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		NewLogger(config.Log{Level: "info", Format: format}, file).Info("stale", "for", 10*time.Second, "at", at)
		got, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range want {
			if !strings.Contains(string(got), part) {
				t.Errorf("%s: %s; want %s", format, got, part)
			}
		}
	}
}
