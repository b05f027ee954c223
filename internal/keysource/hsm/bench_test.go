//go:build pkcs11 && cgo

package hsm

import (
	"crypto"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// BenchmarkSign: signatures per second with a SoftHSM, beside a loop over C_SignInit and C_Sign
// alone with as many sessions. Both run in turns; the figures are medians. Where other programs use
// the machine, the processor time of a signature says more (bare-cpu-us, cpu-us).
func BenchmarkSign(b *testing.B) {
	const each = 20 // signatures of a session in a turn: short, so that what else the machine does meets both
	r := newRig(b)
	d := r.open(b).(*device)
	digest := make([]byte, 32)
	for _, algorithm := range []string{accesstoken.ES256, accesstoken.EdDSA, accesstoken.RS256, accesstoken.PS256} {
		k := create(b, d, algorithm).Signer.(*key)
		opts := k.algorithm.options()
		input, err := k.algorithm.input(digest, opts)
		if err != nil {
			b.Fatal(err)
		}
		for _, sessions := range []int{1, 4, 16} {
			b.Run(fmt.Sprintf("%s/sessions=%d", algorithm, sessions), func(b *testing.B) {
				c, err := d.connection(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				lib := library.cryptoki // without the probe
				var open []pkcs11.SessionHandle
				for range sessions {
					s, err := lib.OpenSession(c.slot, pkcs11.CKF_SERIAL_SESSION)
					if err != nil {
						b.Fatal(err)
					}
					defer func() { _ = lib.CloseSession(s) }()
					open = append(open, s)
				}
				if err := k.prove(b.Context()); err != nil {
					b.Fatal(err)
				}
				handle := k.place.Load().handle
				mechanism := k.algorithm.mechanism()
				turn := func(sign func(i int) error) cost {
					var wg sync.WaitGroup
					began, used := time.Now(), processorTime(b)
					for i := range sessions {
						wg.Go(func() {
							for range each {
								if err := sign(i); err != nil {
									b.Error(err)
								}
							}
						})
					}
					wg.Wait()
					return cost{time.Since(began), processorTime(b) - used}
				}
				var bare, ours []cost
				for b.Loop() {
					bare = append(bare, turn(func(i int) error {
						if err := lib.SignInit(open[i], mechanism, handle); err != nil {
							return err
						}
						_, err := lib.Sign(open[i], input)
						return err
					}))
					ours = append(ours, turn(func(int) error {
						_, err := k.Sign(nil, digest, crypto.SignerOpts(opts))
						return err
					}))
				}
				n := float64(sessions * each)
				b.ReportMetric(n/median(bare, wall).Seconds(), "bare/s")
				b.ReportMetric(n/median(ours, wall).Seconds(), "signatures/s")
				b.ReportMetric(100*median(bare, wall).Seconds()/median(ours, wall).Seconds(), "%-of-bare")
				b.ReportMetric(1e6*median(bare, processor).Seconds()/n, "bare-cpu-us")
				b.ReportMetric(1e6*median(ours, processor).Seconds()/n, "cpu-us")
				b.ReportMetric(0, "ns/op") // of both together: means nothing
			})
		}
	}
}

// A cost is what the signatures of a turn took.
type cost struct{ wall, processor time.Duration }

func wall(c cost) time.Duration      { return c.wall }
func processor(c cost) time.Duration { return c.processor }

func median(all []cost, of func(cost) time.Duration) time.Duration {
	var values []time.Duration
	for _, c := range all {
		values = append(values, of(c))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// processorTime is what this process has used so far.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
