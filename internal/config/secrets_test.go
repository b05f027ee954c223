package config

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSecretFiles(t *testing.T) {
	for _, c := range []struct {
		environ []string
		want    map[string]string
	}{
		{nil, map[string]string{}},
		{[]string{"DATABASE_URL_FILE=a", "REDIS_URL=x", "AUTH_CLUSTER_SECRET_FILE=c"}, map[string]string{"database.url": "a", "cluster.secret": "c"}},
		{[]string{"WATCHWORD_DATABASE_URL_FILE=b", "DATABASE_URL_FILE=a"}, map[string]string{"database.url": "b"}},
		{[]string{"WATCHWORD_DATABASE_URL=sqlite:x", "DATABASE_URL_FILE=a"}, map[string]string{}},
		{[]string{"WATCHWORD_DATABASE_URL_FILE=b", "DATABASE_URL=sqlite:x"}, map[string]string{"database.url": "b"}},
	} {
		if got := SecretFiles(c.environ); !maps.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.environ, got, c.want)
		}
	}
}

// A value is what stands in its file, without what editors put before and after it. A file
// without one is no empty secret, with which the storage key would be another one.
func TestReadSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	for _, c := range []struct{ content, want, err string }{
		{"secret", "secret", ""},
		{"secret\n", "secret", ""},
		{"\xef\xbb\xbfsecret\r\n", "secret", ""},
		{" a secret \n\n", " a secret ", ""},
		{"se\xef\xbb\xbfcret", "se\xef\xbb\xbfcret", ""},
		{"", "", "is empty"},
		{"\n", "", "is empty"},
		{"\xef\xbb\xbf", "", "is empty"},
		{"\xff\xfes\x00e\x00", "", "UTF-16"},
		{"\xfe\xff\x00s\x00e", "", "UTF-16"},
	} {
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadSecret(path)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && (!strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), path)) {
			t.Errorf("%q: %q, %v", c.content, got, err)
		}
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range settings {
		if s.Alias == "" {
			continue
		}
		if _, err := load("", nil, map[string]string{s.Alias + "_FILE": path}); err == nil || !strings.Contains(err.Error(), "is empty") {
			t.Errorf("%s of an empty file: %v", s.Key, err)
		}
	}
}

func TestSameBackend(t *testing.T) {
	const url = "postgres://user:password@host:5432/name?sslmode=require"
	for other, want := range map[string]bool{
		url: true,
		"postgres://other:secret@host:5432/name?sslmode=require":               true,
		"postgres://host:5432/name?sslmode=require&user=other&password=secret": true,
		"postgres://user:password@host/name?sslmode=require":                   false,
		"postgres://user:password@host:5432/other?sslmode=require":             false,
		"postgres://user:password@host:5432/name?sslmode=disable":              false,
		"postgres://user:password@host:5432/name":                              false,
		"mysql://user:password@host:5432/name?sslmode=require":                 false,
		"postgres://user:pass":                                                 false,
		"postgres://user:password@evil:5432/x@host:5432/name?sslmode=require":  false,
		"postgres://user:password@host:5432,other:5432/name?sslmode=require":   false,
		"postgres://user:password@host:5432/name?sslmode=require&sslmode=%zz":  false,
		"": false,
	} {
		if SameBackend(url, other) != want {
			t.Errorf("%s: %v", other, !want)
		}
	}
	if !SameBackend("redis://:a@h/0?master_set=m&sentinel_password=b", "redis://w:c@h/0?master_set=m&sentinel_username=d") {
		t.Error("a Sentinel's credentials are none")
	}
	if SameBackend("sqlite:a", "sqlite:b") {
		t.Error("another file is the same")
	}
}
