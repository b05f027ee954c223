package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestPageIsUpToDate(t *testing.T) {
	want, err := page("../config.go")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/configuration.md is not what internal/config/config.go says: run `make docs`")
	}
}

func TestPageNamesEverySettingOnce(t *testing.T) {
	got, err := page("../config.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{
		"| `server.tls.cert_file` | `WATCHWORD_SERVER_TLS_CERT_FILE` | text |  |",
		"| `database.url` | `WATCHWORD_DATABASE_URL`, `DATABASE_URL`, or from a file | text | `sqlite:data/watchword.db` |",
		"| `tokens.token_duration` | `WATCHWORD_TOKENS_TOKEN_DURATION` | duration | `30m` |",
		"| `password.memory` | `WATCHWORD_PASSWORD_MEMORY` | memory | `19MiB` |",
	} {
		if n := strings.Count(string(got), row); n != 1 {
			t.Errorf("%d rows like %s", n, row)
		}
	}
}

func TestPageNeedsComments(t *testing.T) {
	source := t.TempDir() + "/config.go"
	text, err := os.ReadFile("../config.go")
	if err != nil {
		t.Fatal(err)
	}
	without := strings.Replace(string(text), "\t// Passes over the memory, 1 to 16.\n", "", 1)
	if err := os.WriteFile(source, []byte(without), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := page(source); err == nil || !strings.Contains(err.Error(), "password.iterations") {
		t.Errorf("a setting without a comment: %v", err)
	}
}
