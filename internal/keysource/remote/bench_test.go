package remote_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/keysource/remote/remotetest"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// BenchmarkSign: signatures per second by a signer on this machine, beside bare requests for the
// same signature to the same signer, which nobody checks, and beside bare requests of which the
// signature is verified. All run in turns; the figures are medians. The processor time is that of
// this process, without the signer's.
func BenchmarkSign(b *testing.B) {
	const each = 20 // signatures of a caller in a turn: short, so that what else the machine does meets all
	s := remotetest.StartSigner(b, false, accesstoken.ES256)
	kept := keys(b, keeper(b, s.Config()), accesstoken.ES256, 1)[0]
	key, err := accesstoken.NewKey("key", accesstoken.ES256, kept.Public())
	if err != nil {
		b.Fatal(err)
	}
	body, err := json.Marshal(map[string]string{"kid": "1-es256", "alg": "ES256", "digest": base64.RawURLEncoding.EncodeToString(digest)})
	if err != nil {
		b.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	bare := func() ([]byte, error) {
		req, err := http.NewRequest("POST", s.Config().URL+"/sign", bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+remotetest.Token)
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s", resp.Status)
		}
		return answer, err
	}
	ways := []struct {
		name string
		sign func() error
	}{
		{"bare", func() error { _, err := bare(); return err }},
		{"checked", func() error {
			answer, err := bare()
			if err != nil {
				return err
			}
			var a struct{ Signature string }
			if err := json.Unmarshal(answer, &a); err != nil {
				return err
			}
			signature, err := base64.RawURLEncoding.DecodeString(a.Signature)
			if err == nil && !verified(key, signature) {
				err = fmt.Errorf("a bad signature")
			}
			return err
		}},
		{"keeper", func() error { _, err := kept.Sign(nil, digest, crypto.SHA256); return err }},
	}
	for _, callers := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			took, used := map[string][]time.Duration{}, map[string][]time.Duration{}
			for b.Loop() {
				for _, way := range ways {
					var wg sync.WaitGroup
					began, before := time.Now(), processorTime(b)
					for range callers {
						wg.Go(func() {
							for range each {
								if err := way.sign(); err != nil {
									b.Error(err)
								}
							}
						})
					}
					wg.Wait()
					took[way.name] = append(took[way.name], time.Since(began))
					used[way.name] = append(used[way.name], processorTime(b)-before)
				}
			}
			n := float64(callers * each)
			for _, way := range ways {
				b.ReportMetric(n/median(took[way.name]).Seconds(), way.name+"/s")
				b.ReportMetric(1e6*median(used[way.name]).Seconds()/n, way.name+"-cpu-us")
			}
			b.ReportMetric(100*median(took["bare"]).Seconds()/median(took["keeper"]).Seconds(), "%-of-bare")
			b.ReportMetric(100*median(took["checked"]).Seconds()/median(took["keeper"]).Seconds(), "%-of-checked")
			b.ReportMetric(0, "ns/op") // of all together: means nothing
		})
	}
}

// verified reports whether a signature is that of the key.
func verified(key accesstoken.Key, signature []byte) bool {
	public, ok := key.Public.(*ecdsa.PublicKey)
	return ok && ecdsa.VerifyASN1(public, digest, signature)
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// processorTime is what this process has used so far.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
