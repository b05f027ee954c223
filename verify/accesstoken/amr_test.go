package accesstoken_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A token may say by which methods its user authenticated. What is no list of names is
// refused: another reader might find a method in it.
func TestAMR(t *testing.T) {
	for _, one := range []struct {
		value any // nil: left out
		want  []string
		err   error
	}{
		{nil, nil, nil},
		{[]string{}, []string{}, nil},
		{[]string{"pwd"}, []string{"pwd"}, nil},
		{[]string{"pwd", "otp", "x-own"}, []string{"pwd", "otp", "x-own"}, nil},
		{"otp", nil, accesstoken.ErrMalformed},
		{[]any{"pwd", ""}, nil, accesstoken.ErrMalformed},
		{[]any{"pwd", 1}, nil, accesstoken.ErrMalformed},
		{[]any{[]string{"otp"}}, nil, accesstoken.ErrMalformed},
		{object{"otp": true}, nil, accesstoken.ErrMalformed},
		{true, nil, accesstoken.ErrMalformed},
	} {
		compact := sign(t, header("ES256"), with(claims(), "amr", one.value))
		got, err := rules.Check(compact, now, find)
		if !errors.Is(err, one.err) || err == nil && !slices.Equal(got.AMR, one.want) {
			t.Errorf("amr %v: %+v, %v, want %v, %v", one.value, got, err, one.want, one.err)
		}
		if in := rules.Inspect(compact, now, find); (len(in.Faults) == 0) != (one.err == nil) {
			t.Errorf("amr %v: Inspect finds %v", one.value, in.Faults)
		}
	}
}

func TestACR(t *testing.T) {
	for _, one := range []struct {
		value any // nil: left out
		want  string
		err   error
	}{
		{nil, "", nil},
		{"aal2", "aal2", nil},
		{"", "", accesstoken.ErrMalformed},
		{2, "", accesstoken.ErrMalformed},
		{[]string{"aal2"}, "", accesstoken.ErrMalformed},
	} {
		got, err := rules.Check(sign(t, header("ES256"), with(claims(), "acr", one.value)), now, find)
		if !errors.Is(err, one.err) || err == nil && got.ACR != one.want {
			t.Errorf("acr %v: %+v, %v, want %q, %v", one.value, got, err, one.want, one.err)
		}
	}
}
