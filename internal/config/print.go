package config

import (
	"fmt"
	"io"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// mask stands in place of a secret.
const mask = "********"

// Print writes the configuration as a YAML file that has every setting. Secrets
// are masked: the whole value, or in a URL its password and parameters.
func (c *Config) Print(w io.Writer) error {
	return c.encode(w, (*Setting).masked)
}

// Format implements fmt.Formatter: a configuration in a log or a panic is that of Print, whatever
// the verb.
func (c Config) Format(w fmt.State, _ rune) { _ = c.Print(w) }

// masked returns a value of the setting without what is secret in it.
func (s *Setting) masked(text string) string {
	switch {
	case text == "" || s.Secret == "":
		return text
	case s.Secret == "password":
		return MaskURL(text)
	case s.Secret == "end":
		return maskDated(text)
	default:
		return mask
	}
}

// Texts returns all settings by key, as they are written in the environment. Of a setting that is
// secret in whole or in part, hide makes what is returned in its place; one that is empty stays so.
func (c *Config) Texts(hide func(key, text string) string) map[string]string {
	texts := make(map[string]string, len(settings))
	for i := range settings {
		s := &settings[i]
		text := s.Format(c)
		if s.Secret != "" && text != "" {
			text = hide(s.Key, text)
		}
		texts[s.Key] = text
	}
	return texts
}

// Running returns the settings that are in effect in a replica that started with this configuration
// and has loaded another one since: of that, those that a running replica takes over.
func (c *Config) Running(loaded *Config) *Config {
	running := *c
	for i := range settings {
		if s := &settings[i]; s.Live {
			s.put(&running, s.value(loaded))
		}
	}
	return &running
}

// A Change is a setting that differs between two configurations.
type Change struct {
	Key      string
	Old, New string // without secrets
	Live     bool   // a running replica takes it over; otherwise it takes a restart
}

// Changes returns the settings that differ between this configuration and the next one,
// in the order of the manual.
func (c *Config) Changes(next *Config) []Change {
	var list []Change
	for i := range settings {
		s := &settings[i]
		if before, after := s.Format(c), s.Format(next); before != after {
			live := s.Live && (s.Key != "cluster.static_peers" || isStatic(c) && isStatic(next))
			list = append(list, Change{s.Key, s.masked(before), s.masked(after), live})
		}
	}
	return list
}

// isStatic reports whether replicas use the list of peers. Another way of finding peers takes
// a restart.
func isStatic(c *Config) bool { return c.Cluster.Discovery == DiscoveryStatic }

// encode writes every setting, its text as edit returns it.
func (c *Config) encode(w io.Writer, edit func(s *Setting, text string) string) error {
	root := &yaml.Node{Kind: yaml.MappingNode}
	sections := map[string]*yaml.Node{"": root}
	for i := range settings {
		s := &settings[i]
		at := strings.LastIndex(s.Key, ".")
		parent := section(sections, s.Key[:at])
		var value *yaml.Node
		if list, ok := s.value(c).([]string); ok {
			value = &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
			for _, item := range list {
				value.Content = append(value.Content, scalar(edit(s, item), true))
			}
		} else {
			value = scalar(edit(s, s.Format(c)), s.Type.Kind() == reflect.String)
		}
		parent.Content = append(parent.Content, scalar(s.Key[at+1:], true), value)
	}
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	if err := encoder.Encode(root); err != nil {
		return err
	}
	return encoder.Close()
}

// section returns the mapping for a path, and adds it if it is not there.
func section(sections map[string]*yaml.Node, path string) *yaml.Node {
	if n, found := sections[path]; found {
		return n
	}
	n := &yaml.Node{Kind: yaml.MappingNode}
	sections[path] = n
	parent, name := "", path
	if at := strings.LastIndex(path, "."); at >= 0 {
		parent, name = path[:at], path[at+1:]
	}
	p := section(sections, parent)
	p.Content = append(p.Content, scalar(name, true), n)
	return n
}

// scalar makes a value that readYAML reads back as it is. With the tag of a
// string, the encoder quotes what would otherwise be read as something else.
func scalar(text string, isString bool) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: strings.ReplaceAll(text, "${", "$${")}
	if isString {
		n.Tag = "!!str"
	}
	return n
}

// MaskURL hides the password of a URL, and all that follows a question mark, since
// drivers take passwords there too. It reads the text more widely than package
// url, so that what is not quite a URL is hidden as well.
func MaskURL(text string) string {
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		return text // sqlite:FILE
	}
	rest, query, found := strings.Cut(rest, "?")
	if found {
		query = "?" + mask
	}
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		if user, _, found := strings.Cut(rest[:at], ":"); found {
			rest = user + ":" + mask + rest[at:]
		}
	}
	return scheme + "://" + rest + query
}
