package app

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
)

// A file that is being written is not taken for a whole one: the first half of a secret may
// be long enough to be one.
func TestHalfWrittenFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var c content
	want := func(when string, want found) {
		t.Helper()
		if got := c.is(read([]string{file})); got != want {
			t.Errorf("%s: %d, want %d", when, got, want)
		}
	}
	write("one")
	want("at the start", contentNew)
	want("nobody writes", contentTaken)
	want("it is the same", contentOld)
	write("tw")
	want("half of another one", contentNew)
	write("two")
	want("the whole of it", contentNew)
	want("nobody writes any more", contentTaken)
	write("th")
	want("half of a third one", contentNew)
	write("two")
	want("it is the former one again", contentOld)
	write("th")
	want("half of a third one again", contentNew)
}

// Secrets are read again from their files. What cannot be used changes nothing, and is one
// line of the log, without anything of a secret.
func TestSecretsAreReadAgain(t *testing.T) {
	const one, two, three = "1123456789abcdef1123456789abcdef", "2123456789abcdef2123456789abcdef", "3123456789abcdef3123456789abcdef"
	dir := t.TempDir()
	values := map[string]string{"AUTH_JWT_SECRET": one, "AUTH_JWT_SECRET_PREVIOUS": three, "PKCS11_PIN": "271828", "AUTH_SIGNER_TOKEN": "hvs.one"}
	var environ []string
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		write(name, values[name])
		environ = append(environ, name+"_FILE="+filepath.Join(dir, name))
	}
	cfg, err := config.Load("", environ)
	if err != nil {
		t.Fatal(err)
	}
	log := &logBuffer{}
	logger := slog.New(slog.NewJSONHandler(log, nil))
	var taken []*config.Config
	var refuse error
	n := &Node{logger: logger, loaded: cfg, onSecrets: func(next *config.Config) error {
		if refuse == nil {
			taken = append(taken, next)
		}
		return refuse
	}}
	lines := 0
	again := reread("", environ, logger, n.Reload)
	// reads expects so many lines more, the last with a text, and whether the secrets are
	// taken over.
	reads := func(when string, more int, text string, takes bool) {
		t.Helper()
		before := len(taken)
		again()
		if got := len(taken) > before; got != takes {
			t.Errorf("%s: taken over: %v", when, got)
		}
		all := slices.Collect(strings.Lines(log.String()))
		if len(all)-lines != more || more > 0 && !strings.Contains(all[len(all)-1], text) {
			t.Errorf("%s: %d lines more, want %d with %q:\n%s", when, len(all)-lines, more, text, strings.Join(all[lines:], ""))
		}
		lines = len(all)
	}
	reads("nothing has changed", 0, "", false)

	write("AUTH_JWT_SECRET_PREVIOUS", three+"\n"+one+"\n")
	reads("the present secret will be a former one", 1, "tokens.previous_secrets", true)
	write("AUTH_JWT_SECRET", two+"\r\n")
	reads("another secret", 1, "tokens.secret", true)
	want := []config.SharedSecret{{Text: two}, {Text: three}, {Text: one}}
	if got := taken[1].SharedSecrets(); !reflect.DeepEqual(got, want) {
		t.Errorf("the secrets are %v", got)
	}
	write("PKCS11_PIN", "314159")
	write("AUTH_SIGNER_TOKEN", "hvs.two")
	reads("another PIN and token", 1, "tokens.pkcs11.pin", true)
	if got := taken[2].Tokens; got.PKCS11.PIN != "314159" || got.Remote.Token != "hvs.two" {
		t.Errorf("PIN %s, token %s", got.PKCS11.PIN, got.Remote.Token)
	}

	for _, bad := range []struct{ when, name, content, text string }{
		{"the file is empty", "AUTH_JWT_SECRET", "", "is empty"},
		{"the file is a line break", "AUTH_JWT_SECRET", "\n", "is empty"},
		{"the file of former secrets is empty", "AUTH_JWT_SECRET_PREVIOUS", "", "is empty"},
		{"the file is half written", "AUTH_JWT_SECRET", three[:20], "it has 20 bytes"},
		{"a former one is half written", "AUTH_JWT_SECRET_PREVIOUS", one + "\n" + three[:20], "number 2 cannot be used"},
		{"its end is half written", "AUTH_JWT_SECRET_PREVIOUS", one + "@2030-01-", "number 1 cannot be used"},
		{"the secret has a comma", "AUTH_JWT_SECRET", three + "," + one, "no comma"},
		{"the file is UTF-16", "AUTH_JWT_SECRET", "\xff\xfe1\x001\x00", "UTF-16"},
		{"the PIN's file is empty", "PKCS11_PIN", "", "is empty"},
		{"the token's file is empty", "AUTH_SIGNER_TOKEN", "", "is empty"},
	} {
		before, err := os.ReadFile(filepath.Join(dir, bad.name))
		if err != nil {
			t.Fatal(err)
		}
		write(bad.name, bad.content)
		reads(bad.when, 1, bad.text, false)
		write(bad.name, string(before))
		reads(bad.when+", and then as before", 0, "", false)
	}
	if err := os.Remove(filepath.Join(dir, "AUTH_JWT_SECRET")); err != nil {
		t.Fatal(err)
	}
	reads("the file is gone", 1, "no such file", false)

	// What is refused by what uses the secrets is tried again.
	write("AUTH_JWT_SECRET", three)
	write("AUTH_JWT_SECRET_PREVIOUS", two)
	refuse = errors.New("it is refused")
	reads("they are refused", 1, "going on with those before", false)
	refuse = nil
	reads("they are no longer refused", 1, "tokens.secret", true)

	write("AUTH_JWT_SECRET", one)
	reads("the former one is missing", 2, "its tokens are refused from now on", true)

	for _, secret := range []string{one[:16], two[:16], three[:16], "271828", "314159", "hvs."} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log has %s:\n%s", secret, log.String())
		}
	}

	// A replica that uses none says that it takes a restart.
	n.onSecrets = nil
	write("AUTH_JWT_SECRET", two)
	reads("nothing uses them", 1, "needs a restart", false)
}
