package config

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/watchword-auth/watchword/internal/secretfile"
)

// SecretFiles returns the files from which an environment, given as by os.Environ, has
// settings read (DATABASE_URL_FILE), by the keys of the settings.
func SecretFiles(environ []string) map[string]string {
	env, files := variables(environ), map[string]string{}
	for _, s := range settings {
		for _, name := range []string{s.Alias, s.Env} { // the last one counts
			if s.Alias == "" {
				continue
			}
			if _, found := env[name]; found {
				delete(files, s.Key)
			}
			if path, found := env[name+"_FILE"]; found {
				files[s.Key] = path
			}
		}
	}
	return files
}

// ReadSecret returns the value in the file of a secret, by the rules of package secretfile.
// Some editors begin a file with a byte order mark and end it with a line break; neither is
// part of the value. A file without a value is an error: it may not have been written yet,
// and no secret is empty. Errors name the file and show nothing of its content.
func ReadSecret(path string) (string, error) {
	data, _, err := secretfile.Rules{Max: maxSize}.Read(path)
	if err != nil {
		return "", readable(path, err)
	}
	text, err := secretfile.Text(data)
	if err != nil {
		return "", fmt.Errorf("file %s cannot be used: %w", path, err)
	}
	if text = strings.TrimRight(text, "\r\n"); text == "" {
		return "", fmt.Errorf("file %s is empty", path)
	}
	return text, nil
}

// SameBackend reports whether two URLs of a database or of Redis differ in nothing but the
// users and passwords.
func SameBackend(a, b string) bool { return withoutCredentials(a) == withoutCredentials(b) }

func withoutCredentials(text string) string {
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		return text // sqlite:FILE
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/") // of several hosts, too, which package url does not read
	authority = authority[strings.LastIndex(authority, "@")+1:]
	values, err := url.ParseQuery(query)
	if err != nil {
		return text
	}
	for _, name := range []string{"user", "password", "sentinel_username", "sentinel_password"} {
		values.Del(name)
	}
	return scheme + "://" + authority + "/" + path + "?" + values.Encode()
}
