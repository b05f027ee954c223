package accesstoken_test

import (
	"errors"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A token may say when its user authenticated. What is no time is refused.
func TestAuthTime(t *testing.T) {
	for _, one := range []struct {
		value any // nil: left out
		want  time.Time
		err   error
	}{
		{nil, time.Time{}, nil},
		{now.Add(-time.Minute).Unix(), now.Add(-time.Minute).Truncate(time.Second), nil},
		{now.Add(time.Hour).Unix(), now.Add(time.Hour).Truncate(time.Second), nil}, // for the reader to judge
		{"1800000000", time.Time{}, accesstoken.ErrMalformed},
		{-1, time.Time{}, accesstoken.ErrMalformed},
		{true, time.Time{}, accesstoken.ErrMalformed},
	} {
		got, err := rules.Check(sign(t, header("ES256"), with(claims(), "auth_time", one.value)), now, find)
		if !errors.Is(err, one.err) || err == nil && !got.AuthTime.Equal(one.want) {
			t.Errorf("auth_time %v: %+v, %v, want %v, %v", one.value, got, err, one.want, one.err)
		}
	}
}
