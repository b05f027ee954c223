package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/watchword-auth/watchword/internal/secretfile"
	"github.com/watchword-auth/watchword/internal/yamlfile"
)

// maxSize bounds every file that is read here.
const maxSize = 1 << 20

// pathVariable names the configuration file; it is the one variable with the
// prefix that is not a setting.
const pathVariable = prefix + "CONFIG"

// An Error has everything that is wrong with a configuration.
type Error struct {
	Problems []Problem
}

// Error has one line for each problem.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// A Problem is one thing that is wrong: where it was written, which key it
// concerns, and a sentence that says what to change.
type Problem struct {
	Where string // "watchword.yaml:12", or the name of a variable; "" for a default
	Key   string // "server.address"; "" when it is about the file as a whole
	Text  string
}

// String is "where: key: text".
func (p Problem) String() string {
	s := p.Text
	if p.Key != "" {
		s = p.Key + ": " + s
	}
	if p.Where != "" {
		s = p.Where + ": " + s
	}
	return s
}

// FindFile returns the configuration file to load: the one that is named by the
// flag, or by WATCHWORD_CONFIG, or watchword.yaml in the working directory if it
// is there; otherwise "", which means none.
func FindFile(flag string, environ []string) string {
	if flag != "" {
		return flag
	}
	if named := variables(environ)[pathVariable]; named != "" {
		return named
	}
	const usual = "watchword.yaml"
	if _, err := os.Stat(usual); err == nil {
		return usual
	}
	return ""
}

// Load reads the configuration: the defaults, over them the YAML file at path (if
// path is not empty), over it the environment, given as by os.Environ. A variable
// of the deployment guide (DATABASE_URL) counts less than the one with the prefix
// (WATCHWORD_DATABASE_URL). The result is valid; otherwise the error is an *Error
// with all that is wrong, or says why the file cannot be read.
func Load(path string, environ []string) (*Config, error) {
	var yaml []byte
	if path != "" {
		var err error
		if yaml, err = readFile(path); err != nil {
			return nil, fmt.Errorf("the configuration %w", err)
		}
	}
	return load(path, yaml, variables(environ))
}

// load is Load without the file system, but for the files of secrets.
func load(path string, yaml []byte, env map[string]string) (*Config, error) {
	file := readYAML(path, yaml, env)
	environment := readEnvironment(env)
	if problems := slices.Concat(file.problems, environment.problems); len(problems) > 0 {
		return nil, &Error{problems}
	}

	cfg := Default()
	for _, l := range []*layer{file, environment} {
		for key, value := range l.values {
			find(key).put(cfg, value)
		}
	}
	cfg.Complete()

	if err := cfg.Validate(); err != nil {
		invalid := err.(*Error)
		for i, p := range invalid.Problems {
			if where, found := environment.where[p.Key]; found {
				invalid.Problems[i].Where = where
			} else {
				invalid.Problems[i].Where = file.where[p.Key]
			}
		}
		return nil, invalid
	}
	return cfg, nil
}

// A layer has what one source sets.
type layer struct {
	values   map[string]any    // by key, each of its setting's type
	where    map[string]string // by key: where it was written
	problems []Problem
}

func newLayer() *layer {
	return &layer{values: map[string]any{}, where: map[string]string{}}
}

// set parses text as the value of s.
func (l *layer) set(s *Setting, where, text string) {
	value, err := s.parse(text)
	if err != nil {
		l.problem(where, s.Key, "%v", err)
		return
	}
	l.values[s.Key], l.where[s.Key] = value, where
}

func (l *layer) problem(where, key, format string, args ...any) {
	l.problems = append(l.problems, Problem{where, key, fmt.Sprintf(format, args...)})
}

// readEnvironment makes a layer of the environment.
func readEnvironment(env map[string]string) *layer {
	l := newLayer()
	known := []string{strings.TrimPrefix(pathVariable, prefix)} // without the prefix
	for i := range settings {
		s := &settings[i]
		known = append(known, strings.TrimPrefix(s.Env, prefix))
		if s.Alias != "" {
			known = append(known, strings.TrimPrefix(s.Env, prefix)+"_FILE")
		}
		for _, name := range []string{s.Alias, s.Env} { // the last one counts
			if name == "" {
				continue
			}
			value, found := env[name]
			if s.Alias != "" {
				if path, named := env[name+"_FILE"]; named {
					if found {
						l.problem(name, s.Key, "%s_FILE is set too; keep one of the two", name)
						continue
					}
					secret, err := ReadSecret(path)
					if err != nil {
						l.problem(name+"_FILE", s.Key, "%v", err)
						continue
					}
					l.set(s, name+"_FILE", secret)
					continue
				}
			}
			if found {
				l.set(s, name, value)
			}
		}
	}
	for name, value := range env {
		setting, found := strings.CutPrefix(name, prefix)
		if !found || slices.Contains(known, setting) || isServiceLink(name, value) {
			continue
		}
		near := yamlfile.Nearest(setting, known)
		if near != "" {
			near = prefix + near
		}
		l.problem(name, "", "there is no such setting%s", yamlfile.DidYouMean(near))
	}
	slices.SortStableFunc(l.problems, func(a, b Problem) int { return strings.Compare(a.Where, b.Where) })
	return l
}

// Kubernetes puts variables into every pod for every service of its namespace. Those of a
// service that is named watchword begin like settings.
var (
	serviceLink     = regexp.MustCompile(`^WATCHWORD_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR))$`)
	servicePortLink = regexp.MustCompile(`^WATCHWORD_([A-Z0-9_]+_)?PORT(_[0-9]+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://`)
)

// isServiceLink reports whether a variable is one that Kubernetes makes.
func isServiceLink(name, value string) bool {
	return serviceLink.MatchString(name) || servicePortLink.MatchString(name+"="+value)
}

// variables makes a map of os.Environ's list.
func variables(environ []string) map[string]string {
	env := make(map[string]string, len(environ))
	for _, entry := range environ {
		if name, value, found := strings.Cut(entry, "="); found {
			env[name] = value
		}
	}
	return env
}

// readFile reads a small file. Its errors name the file and say what is wrong in
// plain words.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, readable(path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(data) > maxSize {
		err = secretfile.ErrTooLarge
	}
	return data, readable(path, err)
}

// readable says in plain words why a file was not read; nil: it was.
func readable(path string, err error) error {
	var e *fs.PathError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, secretfile.ErrTooLarge):
		return fmt.Errorf("file %s is larger than 1 MiB", path)
	case errors.As(err, &e):
		err = e.Err // without the path
	}
	return fmt.Errorf("file %s cannot be read: %w", path, err)
}
