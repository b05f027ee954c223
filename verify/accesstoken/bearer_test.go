package accesstoken_test

import (
	"errors"
	"testing"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

func TestBearer(t *testing.T) {
	for _, c := range []struct {
		headers []string
		token   string
		err     error
	}{
		{[]string{"Bearer x.y.z"}, "x.y.z", nil},
		{[]string{"bEARER x.y.z"}, "x.y.z", nil},
		{[]string{"Bearer  x.y.z"}, "x.y.z", nil},
		{[]string{"Bearer     x.y.z"}, "x.y.z", nil},
		{[]string{" \tBearer x.y.z \t"}, "x.y.z", nil}, // as HTTP/2 may carry it
		{[]string{"Bearer x.y.z, Bearer a.b.c"}, "x.y.z, Bearer a.b.c", nil},
		{[]string{"Bearer \tx.y.z"}, "\tx.y.z", nil},

		{nil, "", accesstoken.ErrNoToken},
		{[]string{""}, "", accesstoken.ErrNoToken},
		{[]string{"Bearer"}, "", accesstoken.ErrNoToken},
		{[]string{"Bearer   "}, "", accesstoken.ErrNoToken},
		{[]string{"Bearer\tx.y.z"}, "", accesstoken.ErrNoToken},
		{[]string{"Bearerx.y.z"}, "", accesstoken.ErrNoToken},
		{[]string{"x.y.z"}, "", accesstoken.ErrNoToken},
		{[]string{"Basic x.y.z"}, "", accesstoken.ErrNoToken},
		{[]string{"Bearer: x.y.z"}, "", accesstoken.ErrNoToken},
		{[]string{"Bearer x.y.z", "Bearer x.y.z"}, "", accesstoken.ErrSeveralTokens},
		{[]string{"Bearer x.y.z", ""}, "", accesstoken.ErrSeveralTokens},
	} {
		if token, err := accesstoken.Bearer(c.headers); token != c.token || !errors.Is(err, c.err) {
			t.Errorf("%q: %q, %v", c.headers, token, err)
		}
	}
}
