package verify_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/revoked"
)

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// settle lets the stream and what it brings pass.
func settle() {
	time.Sleep(200 * time.Millisecond)
	synctest.Wait()
}

func TestStaleness(t *testing.T) {
	for _, c := range []struct {
		name    string
		onStale verify.OnStale
		want    error
	}{
		{"fail closed", verify.FailClosed, verify.ErrStale},
		{"fail open", verify.FailOpen, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFront(t)
				v := start(t, f, func(cfg *verify.Config) { cfg.OnStale = c.onStale })
				good, bad := f.issuer.Token("u", nil), f.issuer.Sign("u", map[string]any{"jti": "bad"})
				f.issuer.Revoke(revoked.Token, "bad")
				settle()
				expect(t, v, good, nil)
				expect(t, v, bad, verify.ErrRevoked)

				f.cut(fail)
				time.Sleep(verify.DefaultMaxStaleness - time.Second)
				expect(t, v, good, nil)
				time.Sleep(time.Second + 1)
				expect(t, v, good, c.want)
				expect(t, v, bad, verify.ErrRevoked)
				if s := v.Status(); s.Fresh {
					t.Errorf("status is %+v", s)
				}

				f.issuer.Revoke(revoked.Session, "session-late")
				f.answer(nil)
				time.Sleep(4 * time.Second)
				synctest.Wait()
				expect(t, v, good, nil)
				expect(t, v, bad, verify.ErrRevoked)
				expect(t, v, f.issuer.Token("late", nil), verify.ErrRevoked)
			})
		})
	}
}

// cut ends the streams and has h answer from now on.
func (f *front) cut(h http.HandlerFunc) {
	f.answer(h)
	f.broken.Swap(newBreaker()).cancel()
}

func TestAVerifierThatNeverSawTheFeedAcceptsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		f.onlyFeed(fail)
		v := start(t, f, func(cfg *verify.Config) { cfg.OnStale = verify.FailOpen })
		expect(t, v, f.issuer.Token("u", nil), verify.ErrStale)
	})
}

func TestWithoutRevocationsAsksForNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, func(cfg *verify.Config) { cfg.WithoutRevocations = true })
		time.Sleep(time.Hour)
		expect(t, v, f.issuer.Token("u", nil), nil)
		if f.pages.Load()+f.streams.Load() > 0 {
			t.Error("the feed was asked")
		}
	})
}

func TestAStreamIsResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, nil)
		for i := range 20 {
			f.issuer.Revoke(revoked.Token, strconv.Itoa(i))
			settle()
			expect(t, v, f.issuer.Sign("u", map[string]any{"jti": strconv.Itoa(i)}), verify.ErrRevoked)
			f.cut(nil)
			time.Sleep(time.Second)
		}
		expect(t, v, f.issuer.Token("u", nil), nil)
		if n := f.streams.Load(); n < 20 {
			t.Errorf("%d streams", n)
		}
	})
}

// A stream that was well is begun again at once when it breaks, so that a replica
// that dies is hardly missed; streams that break at once are not a storm.
func TestABrokenStreamIsBegunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, nil)
		expect(t, v, f.issuer.Token("u", nil), nil)
		for range 20 {
			time.Sleep(2 * time.Second)
			before := f.streams.Load()
			f.cut(nil)
			time.Sleep(101 * time.Millisecond)
			synctest.Wait()
			if f.streams.Load() == before {
				t.Fatal("a stream that was well is not begun again at once")
			}
		}
		f.cut(func(w http.ResponseWriter, r *http.Request) {
			if !isStream(r) {
				f.issuer.ServeHTTP(w, r)
				return
			}
			ctx, cancel := context.WithTimeout(r.Context(), time.Millisecond)
			defer cancel()
			f.issuer.ServeHTTP(w, r.WithContext(ctx))
		})
		before := f.streams.Load()
		time.Sleep(time.Minute)
		if n := f.streams.Load() - before; n == 0 || n > 600 {
			t.Errorf("%d streams in a minute, each of which ends at once", n)
		}
	})
}

func TestAQuietHalfHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, nil)
		for range 90 {
			time.Sleep(20 * time.Second)
			expect(t, v, f.issuer.Token("u", nil), nil)
		}
		if n := f.streams.Load(); n < 3 || n > 7 { // each lives for 5 to 10 minutes
			t.Errorf("%d streams in half an hour", n)
		}
		if n := f.pages.Load(); n > 15 {
			t.Errorf("%d pages in half an hour beside the stream", n)
		}
	})
}

func TestPagesWhenStreamsAreHeldBack(t *testing.T) {
	for name, h := range map[string]func(f *front) http.HandlerFunc{
		"refused": func(*front) http.HandlerFunc { return fail },
		"answered with a page": func(f *front) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				r = r.Clone(r.Context())
				r.Header.Set("Accept", "application/json")
				f.issuer.ServeHTTP(w, r)
			}
		},
		"buffered for ever": func(*front) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				w.WriteHeader(http.StatusOK)
				<-r.Context().Done()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFront(t)
				f.answer(func(w http.ResponseWriter, r *http.Request) {
					if isStream(r) {
						h(f)(w, r)
						return
					}
					f.issuer.ServeHTTP(w, r)
				})
				v := start(t, f, nil)
				for i := range 120 {
					expect(t, v, f.issuer.Token("u", nil), nil)
					f.issuer.Revoke(revoked.Token, strconv.Itoa(i))
					time.Sleep(6 * time.Second) // a stream is waited for 5 s, once in a while
					expect(t, v, f.issuer.Sign("u", map[string]any{"jti": strconv.Itoa(i)}), verify.ErrRevoked)
				}
				if n := f.pages.Load(); n > 720*4/3 {
					t.Errorf("%d pages in 12 minutes", n)
				}
			})
		})
	}
}

// A log of many pages: the client has all of it before it trusts itself.
func TestManyPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		for i := range 35_000 {
			f.issuer.Revoke(revoked.Token, strconv.Itoa(i))
		}
		v := start(t, f, nil)
		for _, i := range []int{0, 9999, 10_000, 34_999} {
			expect(t, v, f.issuer.Sign("u", map[string]any{"jti": strconv.Itoa(i)}), verify.ErrRevoked)
		}
		expect(t, v, f.issuer.Token("u", nil), nil)
		if n := f.pages.Load(); n != 4 {
			t.Errorf("%d pages", n)
		}
	})
}

// What an event says is as old as its way was long: a network that stalls and
// then delivers must not make old knowledge look new.
func TestDelayedEventsAreOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		var delay atomic.Int64
		f.onlyFeed(func(w http.ResponseWriter, r *http.Request) {
			if !isStream(r) {
				fastOnce(f, &delay, w, r)
				return
			}
			in, out := io.Pipe()
			go func() {
				f.issuer.ServeHTTP(&answer{header: w.Header(), body: out, ready: make(chan struct{})}, r)
				out.Close()
			}()
			type late struct {
				line string
				at   time.Time
			}
			lines := make(chan late, 1<<16)
			go func() {
				for s := bufio.NewScanner(in); s.Scan(); {
					lines <- late{s.Text(), time.Now()}
				}
				close(lines)
			}()
			for l := range lines {
				time.Sleep(time.Until(l.at.Add(time.Duration(delay.Load()))))
				if _, err := fmt.Fprintln(w, l.line); err != nil {
					in.CloseWithError(err)
				}
			}
		})
		v := start(t, f, nil)
		time.Sleep(2 * time.Second)
		expect(t, v, f.issuer.Token("u", nil), nil)
		if s := v.Status(); time.Since(s.Confirmed) > 200*time.Millisecond {
			t.Errorf("without delay, confirmed %v ago", time.Since(s.Confirmed))
		}
		// From now on every event takes 4 s: knowledge is 4 s old, whatever arrives.
		delay.Store(int64(4 * time.Second))
		time.Sleep(4500 * time.Millisecond)
		synctest.Wait()
		if s := v.Status(); time.Since(s.Confirmed) < 4*time.Second {
			t.Errorf("events that took 4 s confirm what was %v ago", time.Since(s.Confirmed))
		}
		v.Close()
		time.Sleep(10 * time.Second) // what is under way arrives
	})
}

// The defect: a replica that is cut off from the log goes on sending heads, and a
// follower of its stream stayed until it was stale, although other replicas were well.
func TestAReplicaThatIsCutOffIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		v := start(t, f, nil)
		bad := f.issuer.Sign("u", map[string]any{"jti": "bad"})
		expect(t, v, bad, nil)
		settle()

		// The balancer gives every other request to a replica that knows nothing new.
		record := httptest.NewRecorder()
		f.issuer.ServeHTTP(record, httptest.NewRequest("GET", "/api/revocations", nil))
		var page revoked.Page
		if err := json.Unmarshal(record.Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		cutOff := func(w http.ResponseWriter, r *http.Request) {
			state := func(event string) {
				now := page
				now.Age = time.Since(page.AsOf).Milliseconds()
				text, _ := json.Marshal(now)
				fmt.Fprintf(w, event, text)
			}
			if !isStream(r) {
				w.Header().Set("Content-Type", "application/json")
				state("%s")
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			state("event: resume\ndata: %s\n\n")
			for r.Context().Err() == nil {
				state("event: head\ndata: %s\n\n")
				time.Sleep(time.Second)
			}
		}
		var requests atomic.Int64
		f.broken.Swap(newBreaker()).cancel() // a reader that follows a stream begins again
		f.onlyFeed(func(w http.ResponseWriter, r *http.Request) {
			if requests.Add(1)%2 == 0 || isStream(r) && requests.Load() < 4 {
				cutOff(w, r)
			} else {
				f.issuer.ServeHTTP(w, r)
			}
		})
		f.issuer.Revoke(revoked.Token, "bad")
		for range 300 {
			time.Sleep(100 * time.Millisecond)
			expect(t, v, f.issuer.Token("good", nil), nil)
		}
		expect(t, v, bad, verify.ErrRevoked)
		v.Close()
		time.Sleep(2 * time.Second) // the last of the streams ends
	})
}

// fastOnce answers pages as long as nothing is delayed.
func fastOnce(f *front, delay *atomic.Int64, w http.ResponseWriter, r *http.Request) {
	if delay.Load() > 0 {
		fail(w, r)
		return
	}
	f.issuer.ServeHTTP(w, r)
}

// The feed of a database that was replaced, or of a server that has read less.
func TestAnotherLogBringsNothingBack(t *testing.T) {
	page := func(log string, head, ageMS int64, entries ...revoked.Entry) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if isStream(r) {
				fail(w, r)
				return
			}
			after, _ := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
			p := revoked.Page{Log: log, Head: head, AsOf: time.Now(), Age: ageMS}
			for _, e := range entries {
				if e.Seq > after {
					p.Entries = append(p.Entries, e)
				}
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(p)
		}
	}
	entry := func(seq int64, name string) revoked.Entry {
		return revoked.Entry{Seq: seq, Kind: revoked.Token, ID: revoked.Digest(revoked.Token, name), ExpiresAt: time.Now().Add(time.Hour).Unix()}
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		token := func(jti string) string { return f.issuer.Sign("u", map[string]any{"jti": jti}) }
		f.onlyFeed(page("a", 3, 0, entry(1, "a1"), entry(3, "a3")))
		v := start(t, f, nil)
		expect(t, v, token("a3"), verify.ErrRevoked)

		f.onlyFeed(page("a", 2, 0, entry(1, "a1"))) // a replica that is behind
		time.Sleep(5 * time.Second)
		expect(t, v, token("a3"), verify.ErrRevoked)
		expect(t, v, token("good"), nil)

		f.onlyFeed(page("b", 5, 0, entry(2, "b2"), entry(5, "b5")))
		time.Sleep(5 * time.Second)
		for _, jti := range []string{"a1", "a3", "b2", "b5"} {
			expect(t, v, token(jti), verify.ErrRevoked)
		}
		expect(t, v, token("good"), nil)

		// The sender says that it knows nothing new since long.
		f.onlyFeed(page("b", 5, 60_000))
		time.Sleep(verify.DefaultMaxStaleness + 2*time.Second)
		expect(t, v, token("good"), verify.ErrStale)
	})
}

func TestPagesThatAreNotBelieved(t *testing.T) {
	now := `"as_of":"2026-01-01T00:00:00.000Z","age_ms":0`
	for name, body := range map[string]string{
		"garbage":       `<html>`,
		"nothing":       `{}`,
		"no log":        `{"head":1,` + now + `}`,
		"no time":       `{"log":"a","head":1}`,
		"from tomorrow": `{"log":"a","head":1,"as_of":"2026-01-01T00:00:00.000Z","age_ms":-5}`,
		"before long":   `{"log":"a","head":1,"as_of":"2026-01-01T00:00:00.000Z","age_ms":9223372036855}`, // a little above 2^63 ns
		"for ever":      `{"log":"a","head":1,"as_of":"2026-01-01T00:00:00.000Z","age_ms":9223372036854775807}`,
		"unknown kind":  `{"log":"a","head":1,` + now + `,"entries":[{"seq":1,"kind":"tenant","id":"AAAAAAAAAAAAAAAAAAAAAA","exp":1900000000}]}`,
		"wrong id":      `{"log":"a","head":1,` + now + `,"entries":[{"seq":1,"kind":"jti","id":"AAAA","exp":1900000000}]}`,
		"never ends":    `{"log":"a","head":1,` + now + `,"more":true}`,
		"a cached one":  `{"log":"a","head":1,` + now + `}`,
		"too large":     `{"log":"a","head":1,` + now + `,"x":"` + strings.Repeat("x", 17<<20) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFront(t)
				f.onlyFeed(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					if name == "a cached one" {
						w.Header().Set("Age", "11")
					}
					if name == "too large" && f.pages.Load() > 2 { // 17 MB are dear to send
						body = "<html>"
					}
					_, _ = io.WriteString(w, body)
				})
				v := start(t, f, nil)
				expect(t, v, f.issuer.Token("u", nil), verify.ErrStale)
				time.Sleep(10 * time.Second)
				if n := f.pages.Load(); n > 20 {
					t.Errorf("asked %d times in 10 s", n)
				}
			})
		})
	}
}

// What is older than a duration can be is old, and nothing that is known for ever.
func TestAStreamOfAnImmenseAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		f.onlyFeed(func(w http.ResponseWriter, r *http.Request) {
			if !isStream(r) {
				f.issuer.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			log, _, _ := strings.Cut(r.Header.Get("Last-Event-ID"), ":")
			for _, event := range []string{"resume", "head"} {
				fmt.Fprintf(w, "event: %s\ndata: {\"log\":%q,\"head\":0,\"as_of\":\"2026-01-01T00:00:00Z\",\"age_ms\":9223372036855}\n\n", event, log)
			}
		})
		v := start(t, f, nil)
		expect(t, v, f.issuer.Token("u", nil), nil)
		time.Sleep(time.Second)
		f.cut(fail)
		time.Sleep(verify.DefaultMaxStaleness + time.Second)
		if n := f.streams.Load(); n == 0 {
			t.Error("no stream was tried")
		}
		expect(t, v, f.issuer.Token("u", nil), verify.ErrStale)
	})
}
