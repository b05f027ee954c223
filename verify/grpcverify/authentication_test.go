package grpcverify_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/grpcverify"
	"github.com/watchword-auth/watchword/verify/verifytest"
)

// A call may need scopes. The status says which ones.
func TestCallsThatNeedScopes(t *testing.T) {
	w := newWorld(t, func(v *verify.Verifier) *grpcverify.Guard {
		return grpcverify.New(v).Method("/ship.Log/Open", verify.Scope("log:read", "log:write"))
	})
	with := func(scope string) string {
		return "Bearer " + w.issuer.Sign("u", map[string]any{"scope": scope})
	}
	if got, err := w.call("/ship.Log/Open", with("log:write log:read")); err != nil || got != "u" {
		t.Errorf("with the scopes: %q, %v", got, err)
	}
	_, err := w.call("/ship.Log/Open", with("log:read"))
	w.want(err, codes.PermissionDenied, "forbidden")
	if m := status.Convert(err).Message(); !strings.Contains(m, "scope=log:read and scope=log:write") {
		t.Errorf("it does not say what is needed: %q", m)
	}
}

// A call may need an authentication of its own. The status says that the client has to
// authenticate again, and how.
func TestCallsThatNeedAnAuthentication(t *testing.T) {
	w := newWorld(t, func(v *verify.Verifier) *grpcverify.Guard {
		return grpcverify.New(v).
			Method("/ship.Log/Open", verify.Claim("log", "w"), verify.FreshAuth(5*time.Minute), verify.AMR("otp", "hwk")).
			Method("/ship.Log/Silent", verify.FreshAuth(4*time.Second))
	})
	writer := map[string]string{"log": "w"}
	after := func(ago time.Duration, claims map[string]string, amr ...string) string {
		return "Bearer " + w.issuer.TokenAfter(verifytest.Authentication{At: time.Now().Add(-ago), AMR: amr}, "u", claims)
	}
	got, err := w.call("/ship.Log/Open", after(time.Minute, writer, "pwd", "otp"))
	if err != nil || got != "u" {
		t.Errorf("a fresh second factor: %q, %v", got, err)
	}
	_, err = w.call("/ship.Log/Open", after(time.Hour, writer, "pwd", "otp"))
	w.want(err, codes.Unauthenticated, "reauthentication_required")
	if m := status.Convert(err).Message(); !strings.Contains(m, "auth_time within 5m0s") {
		t.Errorf("it does not say what is needed: %q", m)
	}
	_, err = w.call("/ship.Log/Open", after(0, writer, "pwd"))
	w.want(err, codes.Unauthenticated, "reauthentication_required")
	_, err = w.call("/ship.Log/Open", after(time.Hour, nil, "pwd"))
	w.want(err, codes.PermissionDenied, "forbidden")
	_, err = w.call("/ship.Log/Open", "Bearer "+w.issuer.Token("u", writer))
	w.want(err, codes.Unauthenticated, "reauthentication_required")
	if got, err := w.call("/ship.Log/Read", after(time.Hour, nil)); err != nil || got != "u" {
		t.Errorf("a call that needs none: %q, %v", got, err)
	}
	// A stream ends when its authentication is no longer fresh.
	stream := w.stream("/ship.Log/Silent", after(2*time.Second, nil))
	_, err = exchange(stream)
	w.want(err, codes.Unauthenticated, "reauthentication_required")
}
