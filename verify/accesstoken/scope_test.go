package accesstoken_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A token may say what it is good for. What is no list of scopes is refused: another reader might
// find a scope in it.
func TestScope(t *testing.T) {
	for _, one := range []struct {
		value any // nil: left out
		want  string
		err   error
	}{
		{nil, "", nil},
		{"orders:read", "orders:read", nil},
		{"a b a", "a b a", nil},
		{"!#[]~ https://ships.example/all?x=1", "!#[]~ https://ships.example/all?x=1", nil},
		{"", "", accesstoken.ErrMalformed},
		{" ", "", accesstoken.ErrMalformed},
		{" a", "", accesstoken.ErrMalformed},
		{"a ", "", accesstoken.ErrMalformed},
		{"a  b", "", accesstoken.ErrMalformed},
		{"a\tb", "", accesstoken.ErrMalformed},
		{"a\nb", "", accesstoken.ErrMalformed},
		{"a\u00a0b", "", accesstoken.ErrMalformed},
		{"a\x7f", "", accesstoken.ErrMalformed},
		{"é", "", accesstoken.ErrMalformed},
		{`a"b`, "", accesstoken.ErrMalformed},
		{`a\b`, "", accesstoken.ErrMalformed},
		{[]string{"a"}, "", accesstoken.ErrMalformed},
		{[]string{}, "", accesstoken.ErrMalformed},
		{object{"a": true}, "", accesstoken.ErrMalformed},
		{1, "", accesstoken.ErrMalformed},
		{true, "", accesstoken.ErrMalformed},
		{json.RawMessage("null"), "", accesstoken.ErrMalformed},
	} {
		compact := sign(t, header("ES256"), with(claims(), "scope", one.value))
		got, err := rules.Check(compact, now, find)
		if !errors.Is(err, one.err) || err == nil && got.Scope != one.want {
			t.Errorf("scope %q: %+v, %v, want %q, %v", one.value, got, err, one.want, one.err)
		}
		if in := rules.Inspect(compact, now, find); (len(in.Faults) == 0) != (one.err == nil) {
			t.Errorf("scope %q: Inspect finds %v", one.value, in.Faults)
		}
	}
}

func TestHasScope(t *testing.T) {
	token := &accesstoken.Token{Scope: "read write:all"}
	for name, want := range map[string]bool{
		"read": true, "write:all": true, "write": false, "rea": false, "Read": false, "read write:all": false, "": false, " ": false,
	} {
		if token.HasScope(name) != want {
			t.Errorf("HasScope(%q) is %v", name, !want)
		}
	}
	if new(accesstoken.Token).HasScope("") {
		t.Error("a token without scopes has the empty one")
	}
}
