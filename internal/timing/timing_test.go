package timing

import (
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/verify"
)

// The promises about keys and revocations hold only while these do.
func TestInequalities(t *testing.T) {
	defaults := config.Default()
	stale, poll := defaults.Revocation.MaxStaleness, defaults.Revocation.Poll
	for _, tt := range []struct {
		shorter, longer time.Duration
		why             string
	}{
		{Beat + RegistryPoll + RegistryTimeout, LiveFor, "a replica that is live beats in time: a beat may be noticed to be due one poll late, and take as long as it may"},
		{RegistryPoll + RegistryTimeout + PeerTimeout, CutOff, "a replica that is cut off has asked the maker of a key: its next look fails, and then it asks"},
		{LiveFor + CutOff, Patience, "a replica that has just died is waited for no longer than a ring is patient"},
		{Patience, Forget, "a replica is not forgotten while a key waits for it"},
		{RegistryPoll, LookTimeout, "a request with an unknown kid sees the look that is made anyway"},
		{RegistryPoll + LookTimeout, LiveFor, "a look counts as overdue before the other replicas stop waiting for this one"},
		{KeyPoll, Patience, "replicas that share a key read it while its maker waits"},
		{2 * Leeway, ClockSkew, "two clocks that are off in opposite directions delete nothing that is needed"},
		{Leeway, verify.MaxLeeway, "a resource server may forgive as much as a replica does"},
		{verify.MaxLeeway + Leeway, ClockSkew, "a token that a resource server still accepts is still in its list"},
		{ClockSkew, ForeignRows, "no replica deletes the row of a key that another one still accepts by its own clock"},
		{2 * poll, stale, "by default one poll of the revocation log may fail, and the view is fresh"},
		{stale, verify.DefaultMaxStaleness, "a resource server does not notice that a replica's view is stale for a moment"},
	} {
		if tt.shorter > tt.longer {
			t.Errorf("%v is longer than %v, but: %s", tt.shorter, tt.longer, tt.why)
		}
	}
}
