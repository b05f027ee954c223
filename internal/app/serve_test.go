package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
)

// A duration is readable in every format.
func TestLogWritesDurations(t *testing.T) {
	for format, want := range map[config.LogFormat]string{config.LogJSON: `"for":"10s"`, config.LogText: "for=10s"} {
		file, err := os.Create(filepath.Join(t.TempDir(), "log"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		NewLogger(config.Log{Level: "info", Format: format}, file).Info("stale", "for", 10*time.Second)
		if got, err := os.ReadFile(file.Name()); err != nil || !strings.Contains(string(got), want) {
			t.Errorf("%s: %s, %v; want %s", format, got, err, want)
		}
	}
}
