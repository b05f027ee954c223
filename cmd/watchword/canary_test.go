package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/watchword-auth/watchword/internal/canary"
)

// Who accepted nothing is not said to refuse too late.
func TestCanaryVerdict(t *testing.T) {
	good := canary.Result{Name: "good"}
	deaf := canary.Result{Name: "a resource server", Err: fmt.Errorf("%w: after 10s: no keys", canary.ErrNotAccepted)}
	late := canary.Result{Name: "late", Err: errors.New("it does not refuse the revoked token")}
	const (
		isDeaf = "a resource server: it does not accept a good token: after 10s: no keys"
		isLate = "not all of them refuse the revoked token in time"
	)
	for _, c := range []struct {
		results []canary.Result
		want    string
	}{
		{[]canary.Result{good}, "<nil>"},
		{[]canary.Result{good, deaf}, isDeaf},
		{[]canary.Result{late, good}, isLate},
		{[]canary.Result{late, deaf}, isDeaf + "\n" + isLate},
	} {
		if got := fmt.Sprint(canaryVerdict(c.results)); got != c.want {
			t.Errorf("%v: %q, want %q", c.results, got, c.want)
		}
	}
}
