package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// prefix begins the environment variable of every setting.
const prefix = "WATCHWORD_"

// A Setting describes one key of the configuration.
type Setting struct {
	Key    string       // path in the YAML file: "server.tls.cert_file"
	Env    string       // environment variable: "WATCHWORD_SERVER_TLS_CERT_FILE"
	Alias  string       // second variable, of the deployment guide; "" without one
	OneOf  []string     // the words it may hold; empty: it does not hold one of a few words
	Secret string       // what is never printed: "all", the "password" of a URL, all but the "end" after each secret; "": it is no secret
	Live   bool         // a running replica takes over a change
	Type   reflect.Type // of the field
	index  []int        // where the field is in a Config
}

// settings has all settings in the order of the manual.
var settings = describe(reflect.TypeFor[Config](), "", nil)

// Settings returns all settings in the order of the struct.
func Settings() []Setting { return slices.Clone(settings) }

// describe walks the fields of t. A struct that cannot be read from a text is a section;
// anything else is a setting.
func describe(t reflect.Type, path string, index []int) []Setting {
	var list []Setting
	for i := range t.NumField() {
		field := t.Field(i)
		key := strings.TrimPrefix(path+"."+field.Tag.Get("yaml"), ".")
		at := append(slices.Clone(index), i)
		if isSection(field.Type) {
			list = append(list, describe(field.Type, key, at)...)
			continue
		}
		list = append(list, Setting{
			Key:    key,
			Env:    prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_")),
			Alias:  field.Tag.Get("env"),
			OneOf:  strings.Fields(field.Tag.Get("oneof")),
			Secret: field.Tag.Get("secret"),
			Live:   field.Tag.Get("live") == "true",
			Type:   field.Type,
			index:  at,
		})
	}
	return list
}

// isSection reports whether fields of type t are sections.
func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// find returns the setting, or nil.
func find(key string) *Setting {
	for i := range settings {
		if settings[i].Key == key {
			return &settings[i]
		}
	}
	return nil
}

// children returns the names that stand directly in a section. The path "" is that of the
// whole file.
func children(path string) []string {
	var names []string
	for _, s := range settings {
		rest, inside := s.Key, true
		if path != "" {
			rest, inside = strings.CutPrefix(s.Key, path+".")
		}
		name, _, _ := strings.Cut(rest, ".")
		if inside && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Format writes the setting's value in c as it is written in the environment.
func (s *Setting) Format(c *Config) string {
	if s.Type.Kind() == reflect.String {
		return s.field(c).String()
	}
	switch v := s.value(c).(type) {
	case int:
		return strconv.Itoa(v)
	case bool:
		return strconv.FormatBool(v)
	case time.Duration:
		return formatDuration(v)
	case []string:
		return strings.Join(v, ",")
	case encoding.TextMarshaler:
		text, err := v.MarshalText()
		if err != nil {
			panic("config: " + s.Key + ": " + err.Error()) // none of our types does
		}
		return string(text)
	}
	panic("config: no way to write " + s.Key)
}

// value returns the setting's value in c.
func (s *Setting) value(c *Config) any { return s.field(c).Interface() }

func (s *Setting) field(c *Config) reflect.Value {
	return reflect.ValueOf(c).Elem().FieldByIndex(s.index)
}

// put makes value, which must be of the setting's type, the setting's value in c.
func (s *Setting) put(c *Config, value any) {
	s.field(c).Set(reflect.ValueOf(value))
}

// parse reads the text of a value into the setting's type. Its errors repeat the text. No
// secret is repeated, because secrets are of types that take any text.
func (s *Setting) parse(text string) (any, error) {
	if s.Type.Kind() == reflect.String {
		if len(s.OneOf) > 0 && !slices.Contains(s.OneOf, text) {
			return nil, fmt.Errorf("%q is not one of %s", text, strings.Join(s.OneOf, ", "))
		}
		return reflect.ValueOf(text).Convert(s.Type).Interface(), nil
	}
	switch s.Type {
	case reflect.TypeFor[int]():
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not a whole number", text)
		}
		return n, nil
	case reflect.TypeFor[bool]():
		if text != "true" && text != "false" {
			return nil, fmt.Errorf("%q is not true or false", text)
		}
		return text == "true", nil
	case reflect.TypeFor[time.Duration]():
		return parseDuration(text)
	case reflect.TypeFor[[]string]():
		return parseList(text), nil
	}
	v := reflect.New(s.Type)
	u, ok := v.Interface().(encoding.TextUnmarshaler)
	if !ok {
		panic("config: no way to read " + s.Key)
	}
	if err := u.UnmarshalText([]byte(text)); err != nil {
		return nil, err
	}
	return v.Elem().Interface(), nil
}
