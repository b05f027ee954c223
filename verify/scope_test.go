package verify_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

func ExampleScope() {
	fmt.Println(verify.Scope("orders:read", "orders:write"))
	fmt.Println(verify.Any(verify.Scope("orders:read", "orders:write"), verify.Claim("admin", "all")))
	fmt.Println(verify.Scope())
	// Output:
	// scope=orders:read and scope=orders:write
	// (scope=orders:read and scope=orders:write) or admin=all
	// nobody may
}

// What a token says of scopes and of an authentication an hour ago, what is required, and the
// answer: 200, or the challenge.
func TestRequiredScopes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, nil)
		settle()
		three := verify.Scope("a", "b", "c") // its slice has room for one more
		read, write, ship, fresh := verify.Scope("read"), verify.Scope("write"), verify.Claim("ship", "acc"), verify.FreshAuth(5*time.Minute)
		const forbidden, again = "forbidden: the token does not give the right to this request", "reauthentication_required: the user has to authenticate again, or by another method"
		refused := func(code, description, parameters string) string {
			return `Bearer realm="` + f.issuer.URL + `", error="` + code + `", error_description="` + description + `"` + parameters
		}
		lacking := func(scope string) string { return refused("insufficient_scope", "forbidden", scope) }
		stale := func(parameters string) string {
			return refused("insufficient_user_authentication", "reauthentication_required", parameters)
		}
		for _, c := range []struct {
			scope    any // nil: none
			required []verify.Condition
			status   int
			detail   string
			want     string // the challenge
		}{
			{"read", []verify.Condition{read}, 200, "", ""},
			{"write read", []verify.Condition{read}, 200, "", ""},
			{"read write", []verify.Condition{verify.Scope("write", "read")}, 200, "", ""},
			{"read write", []verify.Condition{read, write}, 200, "", ""},
			{"read", []verify.Condition{verify.Any(ship, write, read)}, 200, "", ""},
			{nil, []verify.Condition{read}, 403, forbidden + ": scope=read", lacking(`, scope="read"`)},
			{"Read", []verify.Condition{read}, 403, forbidden + ": scope=read", lacking(`, scope="read"`)},
			{"reads rea read:all", []verify.Condition{read}, 403, forbidden + ": scope=read", lacking(`, scope="read"`)},
			{"read,write", []verify.Condition{read}, 403, forbidden + ": scope=read", lacking(`, scope="read"`)},

			// The challenge names all that the request needs, so that the next token has it.
			{"read", []verify.Condition{verify.Scope("read", "write", "read")}, 403, forbidden + ": scope=read and scope=write", lacking(`, scope="read write"`)},
			{"read", []verify.Condition{write, read}, 403, forbidden + ": scope=write", lacking(`, scope="write read"`)},
			{"read", []verify.Condition{verify.All(read, write, verify.All(read))}, 403, forbidden + ": scope=read and scope=write and scope=read", lacking(`, scope="read write"`)},

			{nil, []verify.Condition{verify.All(three, read), verify.All(three, write)}, 403,
				forbidden + ": scope=a and scope=b and scope=c and scope=read and scope=a and scope=b and scope=c and scope=write", lacking(`, scope="a b c read write"`)},

			// Scopes are not asked for in vain.
			{nil, []verify.Condition{read, ship}, 403, forbidden + ": ship=acc", lacking("")},
			{nil, []verify.Condition{ship, read}, 403, forbidden + ": ship=acc", lacking("")},
			{nil, []verify.Condition{verify.All(read, ship)}, 403, forbidden + ": scope=read and ship=acc", lacking("")},
			{"read", []verify.Condition{read, ship}, 403, forbidden + ": ship=acc", lacking("")},
			{"read", []verify.Condition{verify.Scope()}, 403, forbidden + ": nobody may", lacking("")},
			{"read", []verify.Condition{verify.Scope("")}, 403, forbidden + ": nobody may", lacking("")},
			{"read write", []verify.Condition{verify.Scope("read write")}, 403, forbidden + ": nobody may", lacking("")},
			{"read", []verify.Condition{verify.Scope("read", `a"b`)}, 403, forbidden + ": nobody may", lacking("")},
			{"read", []verify.Condition{verify.Scope("read", "a\r\nX-Evil:1")}, 403, forbidden + ": nobody may", lacking("")},

			// Of several ways, the first that scopes open.
			{nil, []verify.Condition{verify.Any(ship, read, write)}, 403, forbidden + ": ship=acc or scope=read or scope=write", lacking(`, scope="read"`)},
			{nil, []verify.Condition{verify.Any(verify.All(ship, read), write)}, 403, forbidden + ": (ship=acc and scope=read) or scope=write", lacking(`, scope="write"`)},
			{"write", []verify.Condition{verify.Any(read, write), verify.Scope("pay")}, 403, forbidden + ": scope=pay", lacking(`, scope="write pay"`)},

			// An authentication and scopes are got at once.
			{"read", []verify.Condition{read, fresh}, 401, again + ": auth_time within 5m0s", stale(`, max_age="300"`)},
			{nil, []verify.Condition{read, fresh}, 401, again + ": scope=read and auth_time within 5m0s", stale(`, max_age="300", scope="read"`)},
			{"write", []verify.Condition{verify.All(fresh, read, write)}, 401, again + ": auth_time within 5m0s and scope=read and scope=write", stale(`, max_age="300", scope="read write"`)},
			{nil, []verify.Condition{read, verify.FreshAuth(2 * time.Hour)}, 403, forbidden + ": scope=read", lacking(`, scope="read"`)},
			{nil, []verify.Condition{verify.Any(read, fresh)}, 401, again + ": scope=read or auth_time within 5m0s", stale(`, max_age="300"`)},
			{nil, []verify.Condition{verify.Any(verify.All(read, fresh), write)}, 403, forbidden + ": (scope=read and auth_time within 5m0s) or scope=write", lacking(`, scope="write"`)},
			{nil, []verify.Condition{verify.All(read, fresh, ship)}, 403, forbidden + ": scope=read and auth_time within 5m0s and ship=acc", lacking("")},
		} {
			token := f.issuer.Sign("u", map[string]any{"scope": c.scope, "auth_time": time.Now().Add(-time.Hour).Unix()})
			for range 2 { // the second time it is remembered
				w := guarded(v, token, c.required...)
				if w.Code != c.status || w.Header().Get("WWW-Authenticate") != c.want {
					t.Errorf("%v, required %v: %d, %q, want %d, %q", c.scope, c.required, w.Code, w.Header().Get("WWW-Authenticate"), c.status, c.want)
				}
				var p struct{ Code, Detail string }
				if err := json.Unmarshal(w.Body.Bytes(), &p); c.status != 200 && (err != nil || p.Code+": "+p.Detail != c.detail) {
					t.Errorf("%v, required %v: problem %s, %v, want %q", c.scope, c.required, w.Body, err, c.detail)
				}
			}
		}
		if w := guarded(v, f.issuer.Sign("u", map[string]any{"scope": []string{"read"}}), read); w.Code != 401 {
			t.Errorf("a scope that is an array: %d %s", w.Code, w.Body)
		}
	})
}

// guarded answers a request that needs no more than the conditions.
func guarded(v *verify.Verifier, token string, conditions ...verify.Condition) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", "/", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	v.Require(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), conditions...).ServeHTTP(w, r)
	return w
}

// The error says which scopes are needed, for a server that is not net/http. What becomes of it
// is nothing to the next request.
func TestScopesInAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, nil)
		names := []string{"read", "write"}
		required := []verify.Condition{verify.Scope(names...), verify.ACR("aal2")}
		one := names[:1]
		alone := verify.Scope(one...)
		one[0] = "other"
		token := f.issuer.Sign("u", map[string]any{"acr": "aal2", "scope": "read"})
		if _, err := v.Verify(t.Context(), token, alone); err != nil {
			t.Error(err)
		}
		for range 2 {
			_, err := v.Verify(t.Context(), token, required...)
			var lacking *verify.InsufficientScope
			if !errors.Is(err, verify.ErrForbidden) || !errors.As(err, &lacking) || !slices.Equal(lacking.Scope, []string{"read", "write"}) {
				t.Fatalf("%+v, %v", lacking, err)
			}
			lacking.Scope[0] = "changed"
		}
		for range 2 {
			_, err := v.Verify(t.Context(), f.issuer.Token("u", nil), required...)
			var again *verify.Reauthentication
			if !errors.Is(err, verify.ErrReauthenticate) || !errors.As(err, &again) || !slices.Equal(again.Scope, []string{"read", "write"}) || !slices.Equal(again.ACRValues, []string{"aal2"}) {
				t.Fatalf("%+v, %v", again, err)
			}
			again.Scope[0], again.ACRValues[0] = "changed", "changed"
		}
		if _, err := v.Verify(t.Context(), f.issuer.Sign("u", map[string]any{"scope": 1})); !errors.Is(err, accesstoken.ErrMalformed) {
			t.Errorf("a scope that is a number: %v", err)
		}
	})
}
