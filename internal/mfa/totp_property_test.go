package mfa

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// For all secrets and times, a code is accepted in its own step, in the one before and in the
// one after, which are 90 seconds, and at no other time. Only another step that has the same
// code by chance extends this, so the step that is found tells.
func TestCodeIsAcceptedFor90Seconds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SliceOfN(rapid.Byte(), minimumSecret, 64).Draw(t, "secret")
		step := rapid.Int64Range(2, 1<<40).Draw(t, "step")
		first := time.Unix((step-1)*totpPeriod, 0)      // the first moment at which it is accepted
		past := first.Add(3 * totpPeriod * time.Second) // the first one at which it no longer is
		code := totpCode(secret, step)

		offset := rapid.OneOf(
			rapid.Int64Range(-int64(5*time.Minute), int64(5*time.Minute)),
			rapid.Int64Range(-int64(10*365*24*time.Hour), int64(10*365*24*time.Hour)),
			rapid.SampledFrom([]int64{-1, 0, 1, int64(90*time.Second) - 1, int64(90 * time.Second), int64(90*time.Second) + 1}),
		).Draw(t, "nanoseconds after the first moment")
		now := first.Add(time.Duration(offset))
		inWindow := !now.Before(first) && now.Before(past)

		found, ok := matchTOTP(secret, code, now)
		switch {
		case inWindow && !ok:
			t.Fatalf("the code of step %d is refused %s after its first moment", step, now.Sub(first))
		case ok && totpCode(secret, found) != code:
			t.Fatalf("step %d was found, and has another code", found)
		case ok && (found < stepAt(now)-1 || found > stepAt(now)+1):
			t.Fatalf("step %d was found in step %d", found, stepAt(now))
		case ok && !inWindow && found == step:
			t.Fatalf("the code of step %d is accepted %s after its first moment", step, now.Sub(first))
		}
	})
}
