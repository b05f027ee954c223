package httpkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func newTestBudget(perUser, perAddress int) (b *Budget, log *bytes.Buffer, registry *prometheus.Registry) {
	log, registry = &bytes.Buffer{}, prometheus.NewRegistry()
	return NewBudget(perUser, perAddress, registry, slog.New(slog.NewTextHandler(log, nil))), log, registry
}

func from(ctx context.Context, remote string) *http.Request {
	r := httptest.NewRequestWithContext(ctx, "GET", "/", nil)
	r.RemoteAddr = remote
	return r
}

// Of one user's requests, from however many addresses, only some are served at once. Seven
// times as many wait, for half a second. All others are refused at once, and no request of
// another user notices.
func TestABudgetOfAUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, registry := newTestBudget(2, 1000)
		began := time.Now()
		enter := func(user string, i int) (func(), error) {
			return b.Enter(from(t.Context(), fmt.Sprintf("192.0.2.%d:1", i)), user, fmt.Sprintf("192.0.2.%d", i), Proxies{})
		}
		var leaves []func()
		for i := range 2 {
			leave, err := enter("flooder", i)
			if err != nil {
				t.Fatal(err)
			}
			leaves = append(leaves, leave)
		}
		var wait sync.WaitGroup
		errs := make([]error, 2*waitingFor)
		for i := range errs {
			wait.Go(func() {
				leave, err := enter("flooder", 2+i)
				if errs[i] = err; err == nil {
					leave()
				}
			})
		}
		synctest.Wait()
		if _, err := enter("flooder", 100); !errors.Is(err, ErrTooManyAtOnce) || time.Since(began) != 0 {
			t.Errorf("one more than may wait, after %v: %v", time.Since(began), err)
		}
		if leave, err := enter("honest", 1); err != nil || time.Since(began) != 0 {
			t.Errorf("another user, after %v: %v", time.Since(began), err)
		} else {
			leave()
		}
		// Nothing ends: those that wait give up.
		wait.Wait()
		if time.Since(began) != patience {
			t.Errorf("they waited for %v", time.Since(began))
		}
		for _, err := range errs {
			if !errors.Is(err, ErrTooManyAtOnce) {
				t.Errorf("one that waited in vain: %v", err)
			}
		}
		families, err := registry.Gather()
		if err != nil || len(families) != 1 || len(families[0].GetMetric()) != 2 || families[0].GetMetric()[1].GetCounter().GetValue() != float64(1+len(errs)) { // of addresses, and of users
			t.Errorf("counted are %v, %v", families, err)
		}
		// One ends: all that wait are served, one after the other.
		for i := range errs {
			wait.Go(func() {
				leave, err := enter("flooder", 2+i)
				if errs[i] = err; err == nil {
					time.Sleep(time.Millisecond)
					leave()
				}
			})
		}
		synctest.Wait()
		leaves[0]()
		wait.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
		// A client that goes away waits no longer.
		leave, _ := enter("flooder", 1)
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() {
			_, err := b.Enter(from(ctx, "192.0.2.9:1"), "flooder", "192.0.2.9", Proxies{})
			gone <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-gone; err == nil {
			t.Error("a client that has gone was served")
		}
		leave()
		leaves[1]()
		if len(b.users.byName) != 0 || len(b.addresses.byName) != 0 {
			t.Errorf("kept are %v, %v", b.users.byName, b.addresses.byName)
		}
	})
}

// An address has a budget, whoever asks from it; a /64 of IPv6 is one address, and this
// machine has none.
func TestABudgetOfAnAddress(t *testing.T) {
	for name, c := range map[string]struct {
		address func(i int) string
		bounded bool
	}{
		"an address":     {func(int) string { return "192.0.2.1" }, true},
		"a /64":          {func(i int) string { return fmt.Sprintf("2001:db8:0:1:%x::%x", i, i) }, true},
		"many /64s":      {func(i int) string { return fmt.Sprintf("2001:db8:0:%x::1", i) }, false},
		"many addresses": {func(i int) string { return fmt.Sprintf("192.0.2.%d", i) }, false},
		"this machine":   {func(int) string { return "127.0.0.1" }, false},
		"no address":     {func(int) string { return "" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, _, _ := newTestBudget(1, 3)
				for i := range 10 {
					_, err := b.Enter(from(t.Context(), "192.0.2.1:1"), fmt.Sprint("user", i), c.address(i), Proxies{})
					if refused := err != nil; refused != (c.bounded && i >= 3) {
						t.Errorf("request %d: %v", i, err)
					}
				}
				if c.bounded && (len(b.users.byName) != 3 || len(b.addresses.byName) != 1) {
					t.Errorf("kept are %d users, %d addresses", len(b.users.byName), len(b.addresses.byName))
				}
			})
		})
	}
}

// A user who waits for requests of their own takes no place from others behind the same
// address.
func TestWhoWaitsTakesNoPlaceOfTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, _ := newTestBudget(2, 3)
		enter := func(user string) error {
			_, err := b.Enter(from(t.Context(), "192.0.2.1:1"), user, "192.0.2.1", Proxies{})
			return err
		}
		for range 10 {
			go enter("flooder")
		}
		synctest.Wait()
		began := time.Now()
		if err := enter("honest"); err != nil || time.Since(began) != 0 {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		time.Sleep(time.Second)
	})
}

// A load balancer that is not among the trusted proxies is found in the log, not more often
// than once a minute. A trusted one is not meant.
func TestALoadBalancerThatIsNotTrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, log, _ := newTestBudget(1, 1)
		refuse := func(header string, proxies Proxies) {
			r := from(t.Context(), "10.0.0.1:1")
			if header != "" {
				r.Header.Set("X-Forwarded-For", header)
			}
			if _, err := b.Enter(r, "", "10.0.0.1", proxies); err == nil {
				t.Fatal("not refused")
			}
		}
		leave, err := b.Enter(from(t.Context(), "10.0.0.1:1"), "", "10.0.0.1", Proxies{})
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
		refuse("", Proxies{})
		refuse("10.0.0.1", Proxies{Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
		if log.Len() != 0 {
			t.Errorf("logged %s", log)
		}
		for range 3 {
			refuse("192.0.2.7", Proxies{})
		}
		if n := strings.Count(log.String(), "server.trusted_proxies"); n != 1 {
			t.Errorf("logged %d times: %s", n, log)
		}
		time.Sleep(warnEvery)
		refuse("192.0.2.7", Proxies{})
		if n := strings.Count(log.String(), "server.trusted_proxies"); n != 2 {
			t.Errorf("logged %d times: %s", n, log)
		}
	})
}

// A body that was read ahead reads as it would have: whole, too large, or broken off.
func TestABodyThatIsReadAhead(t *testing.T) {
	broken := errors.New("broken off")
	for name, c := range map[string]struct {
		body io.Reader
		want int
		err  error
	}{
		"empty":       {strings.NewReader(""), 0, nil},
		"whole":       {strings.NewReader("{}"), 2, nil},
		"the largest": {bytes.NewReader(make([]byte, MaxBody)), MaxBody, nil},
		"too large":   {bytes.NewReader(make([]byte, 3*MaxBody)), 3 * MaxBody, nil},
		"broken off":  {&breaking{err: broken}, 1, broken},
	} {
		read := readAhead(io.NopCloser(c.body))
		got, err := io.ReadAll(read)
		if len(got) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// breaking reads one byte and an error, and then the end.
type breaking struct{ err error }

func (b *breaking) Read(p []byte) (int, error) {
	err := b.err
	if b.err = nil; err == nil {
		return 0, io.EOF
	}
	return copy(p, "{"), err
}
