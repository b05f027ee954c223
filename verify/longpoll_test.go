package verify_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// onlyPages refuses streams and has h answer what is asked for pages.
func (f *front) onlyPages(h http.HandlerFunc) {
	f.onlyFeed(func(w http.ResponseWriter, r *http.Request) {
		if isStream(r) {
			fail(w, r)
			return
		}
		h(w, r)
	})
}

// Where streams are held back, the server holds the page back instead: a
// revocation arrives at once, and a quiet server is asked seldom.
func TestLongPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		f.onlyPages(f.issuer.ServeHTTP)
		v := start(t, f, nil)
		time.Sleep(5 * time.Second)
		before := f.pages.Load()
		for range 600 {
			time.Sleep(time.Second)
			if s := v.Status(); !s.Fresh || time.Since(s.Confirmed) > verify.DefaultMaxStaleness/2 {
				t.Fatalf("confirmed %v ago", time.Since(s.Confirmed))
			}
		}
		if n := f.pages.Load() - before; n > 600/2+10 { // each is held back for 2 s
			t.Errorf("%d pages in ten quiet minutes", n)
		}
		if n := f.streams.Load(); n < 3 || n > 8 {
			t.Errorf("%d streams were tried in ten minutes", n)
		}
		before = f.pages.Load()
		late := 0
		for i := range 50 {
			jti := strconv.Itoa(i)
			token := f.issuer.Sign("u", map[string]any{"jti": jti})
			f.issuer.Revoke(revoked.Token, jti)
			time.Sleep(101 * time.Millisecond) // the longest pause between two requests
			synctest.Wait()
			if _, err := v.Verify(t.Context(), token); !errors.Is(err, verify.ErrRevoked) {
				late++ // a stream was just being tried
			}
			time.Sleep(500 * time.Millisecond)
		}
		if late > 2 {
			t.Errorf("%d of 50 revocations were late", late)
		}
		if n := f.pages.Load() - before; n > 2*50+10 {
			t.Errorf("%d pages for 50 revocations", n)
		}
	})
}

// A server that knows nothing of waiting, or has too many waiting, is polled.
func TestServersThatHoldNothingBack(t *testing.T) {
	for name, c := range map[string]struct {
		page func(f *front) http.HandlerFunc
		most int64 // pages in a minute
	}{
		"ignores wait": {func(f *front) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				query := r.URL.Query()
				query.Del("wait")
				r = r.Clone(r.Context())
				r.URL.RawQuery = query.Encode()
				f.issuer.ServeHTTP(w, r)
			}
		}, 80},
		"says that it has waited": {func(*front) http.HandlerFunc {
			return pageOf(`"head":0,"age_ms":0,"waited_ms":3600000`)
		}, 20 * 60},
		"has waited less than nothing": {func(*front) http.HandlerFunc {
			return pageOf(`"head":0,"age_ms":0,"waited_ms":-3600000`)
		}, 20 * 60},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFront(t)
				f.onlyPages(c.page(f))
				v := start(t, f, nil)
				time.Sleep(time.Minute)
				if n := f.pages.Load(); n > c.most || n < 30 {
					t.Errorf("%d pages in a minute", n)
				}
				s := v.Status()
				if age := time.Since(s.Confirmed); age < 0 || age > 2*time.Second {
					t.Errorf("confirmed %v ago", age)
				}
			})
		})
	}
}

func pageOf(members string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"log":"a","as_of":"`+time.Now().Format(time.RFC3339Nano)+`",`+members+`}`)
	}
}

// A page that was under way for long, or lay in a cache, is as old as that.
func TestPagesThatComeLateAreOld(t *testing.T) {
	for name, h := range map[string]func(f *front, w http.ResponseWriter, r *http.Request){
		"under way": func(f *front, w http.ResponseWriter, r *http.Request) {
			late := httptest.NewRecorder()
			f.issuer.ServeHTTP(late, r)
			select {
			case <-time.After(3 * time.Second):
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write(late.Body.Bytes())
			case <-r.Context().Done():
			}
		},
		"in a cache": func(f *front, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Age", "2") // and up to a second more
			f.issuer.ServeHTTP(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFront(t)
				f.onlyPages(func(w http.ResponseWriter, r *http.Request) { h(f, w, r) })
				v := start(t, f, func(c *verify.Config) { c.MaxStaleness = 30 * time.Second })
				for range 60 {
					time.Sleep(time.Second)
					if s := v.Status(); !s.Confirmed.IsZero() && time.Since(s.Confirmed) < 3*time.Second {
						t.Fatalf("what took 3 s confirms what was %v ago", time.Since(s.Confirmed))
					}
				}
				if s := v.Status(); !s.Fresh {
					t.Errorf("confirmed %v ago", time.Since(s.Confirmed))
				}
			})
		})
	}
}

// After an outage, what was missed is asked for at once, not waited for.
func TestALongPollAfterAnOutageWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		f.onlyPages(f.issuer.ServeHTTP)
		v := start(t, f, nil)
		for range 5 {
			time.Sleep(8 * time.Second)
			f.answer(fail)
			time.Sleep(8 * time.Second)
			f.onlyPages(f.issuer.ServeHTTP)
			time.Sleep(3100 * time.Millisecond) // the longest pause after a failure
			synctest.Wait()
			if s := v.Status(); time.Since(s.Confirmed) > 3100*time.Millisecond {
				t.Errorf("confirmed %v ago", time.Since(s.Confirmed))
			}
		}
	})
}

// A cache that joins several questions into one gives the answer of the first to
// all: what that one has waited is not what the others have.
func TestAnotherReadersPageIsNotNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		f.onlyPages(func(w http.ResponseWriter, r *http.Request) {
			waited := ""
			if r.URL.Query().Has("wait") {
				select {
				case <-time.After(time.Second):
				case <-r.Context().Done():
				}
				waited = `,"waited_ms":3000`
			}
			pageOf(`"head":0,"age_ms":0`+waited)(w, r)
		})
		v := start(t, f, nil)
		time.Sleep(10 * time.Second)
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			if s := v.Status(); time.Since(s.Confirmed) < time.Second {
				t.Fatalf("confirmed %v ago", time.Since(s.Confirmed))
			}
		}
	})
}

// A proxy that lets a stream through by the bucket makes it worse than pages.
func TestAStreamInBucketsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		f.onlyFeed(func(w http.ResponseWriter, r *http.Request) {
			if !isStream(r) {
				f.issuer.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			b := &bucket{header: http.Header{}}
			go f.issuer.ServeHTTP(b, r)
			for b.emptyInto(w) {
				select {
				case <-time.After(4500 * time.Millisecond):
				case <-r.Context().Done():
					return
				}
			}
		})
		v := start(t, f, nil)
		time.Sleep(15 * time.Minute)
		if n := f.streams.Load(); n > 10 {
			t.Errorf("%d streams in a quarter of an hour", n)
		}
		late := 0
		for i := range 100 {
			jti := strconv.Itoa(i)
			token := f.issuer.Sign("u", map[string]any{"jti": jti})
			f.issuer.Revoke(revoked.Token, jti)
			time.Sleep(200 * time.Millisecond)
			synctest.Wait()
			if _, err := v.Verify(t.Context(), token); !errors.Is(err, verify.ErrRevoked) {
				late++
			}
			time.Sleep(2 * time.Second)
		}
		if late > 10 {
			t.Errorf("%d of 100 revocations were late", late)
		}
	})
}

// A bucket is an answer that is written to somebody else now and then.
type bucket struct {
	header http.Header
	mu     sync.Mutex
	b      bytes.Buffer
}

func (b *bucket) Header() http.Header { return b.header }
func (b *bucket) WriteHeader(int)     {}
func (b *bucket) Flush()              {}
func (b *bucket) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *bucket) emptyInto(w io.Writer) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err := b.b.WriteTo(w)
	return err == nil
}

// A cache that keeps pages and does not say so keeps nobody fresh: the same page again is no news.
func TestACacheThatDoesNotSayAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		var mu sync.Mutex
		kept := map[string]*httptest.ResponseRecorder{} // by the query
		f.onlyPages(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			page := kept[r.URL.RawQuery]
			mu.Unlock()
			if page == nil {
				page = httptest.NewRecorder()
				f.issuer.ServeHTTP(page, r)
				mu.Lock()
				kept[r.URL.RawQuery] = page
				mu.Unlock()
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(page.Body.Bytes())
		})
		v := start(t, f, nil)
		token := f.issuer.Sign("u", map[string]any{"jti": "one"})
		expect(t, v, token, nil)
		time.Sleep(5 * time.Second)
		f.issuer.Revoke(revoked.Token, "one")
		time.Sleep(verify.DefaultMaxStaleness)
		for range 120 {
			expect(t, v, token, verify.ErrStale)
			time.Sleep(time.Second)
		}
		f.answer(nil)
		time.Sleep(6 * time.Second)
		expect(t, v, token, verify.ErrRevoked)
	})
}
