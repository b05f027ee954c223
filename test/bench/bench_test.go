package bench

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/argon2"
	"golang.org/x/sys/unix"

	"github.com/watchword-auth/watchword/internal/testenv"
)

const (
	rounds   = 7   // of each server, interleaved; the median counts
	requests = 600 // in a round
	callers  = 4
	sessions = 8 // of each caller that renews
	password = "correct horse battery staple"
)

// bareEnv makes the test binary a bare server that listens on the address.
const bareEnv = "BENCH_BARE_SERVER"

func TestMain(m *testing.M) {
	if address := os.Getenv(bareEnv); address != "" {
		// With the time limits of ours: no server on a network does without.
		server := &http.Server{Addr: address, Handler: bare(), ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout: 15 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute}
		fmt.Fprintln(os.Stderr, server.ListenAndServe())
		os.Exit(1)
	}
	if url := os.Getenv(stormEnv); url != "" {
		storm(url)
		return
	}
	os.Exit(m.Run())
}

// bare does only the cryptography of each request.
func bare() http.Handler {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	input := bytes.Repeat([]byte("a"), 420) // as long as a token's signing input
	digest := sha256.Sum256(input)
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		panic(err)
	}
	// As many bytes as our answer has, in as many lines.
	keySet := bytes.Repeat([]byte("k"), 330)
	keySetHeader := http.Header{
		"Content-Type":            {"application/jwk-set+json"},
		"Content-Length":          {"330"},
		"Cache-Control":           {"public, max-age=30, stale-while-revalidate=3, stale-if-error=86400"},
		"Etag":                    {`"AAAAAAAAAAAAAAAAAAAAAA"`},
		"X-Content-Type-Options":  {"nosniff"},
		"Content-Security-Policy": {"default-src 'none'; frame-ancestors 'none'"},
	}
	salt := make([]byte, 16)

	mux := http.NewServeMux()
	mux.HandleFunc("/verify", func(w http.ResponseWriter, r *http.Request) {
		digest := sha256.Sum256(input)
		if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	mux.HandleFunc("/renew", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		digest := sha256.Sum256(input)
		if _, err := key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		argon2.IDKey([]byte(password), salt, 2, 19*1024, 1, 32)
	})
	mux.HandleFunc("/pkeys", func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), keySetHeader)
		_, _ = w.Write(keySet)
	})
	var answer recorded
	mux.HandleFunc("/record", func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	mux.HandleFunc("/replay", func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), answer.Header)
		_, _ = w.Write(answer.Body)
	})
	mux.HandleFunc("/stream", bareStream)
	return mux
}

// A recorded answer is what the bare server writes without doing anything for it.
type recorded struct {
	Header http.Header
	Body   []byte
}

// replay has the bare server answer /replay as watchword answers the request.
func replay(b *testing.B, watchword, bare *server, r *http.Request) {
	b.Helper()
	resp, err := watchword.client.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		b.Fatal(resp.Status, err)
	}
	resp.Header.Del("Date") // net/http writes it
	resp, err = bare.client.Do(post(bare, "/record", recorded{resp.Header, body}))
	if err != nil || resp.StatusCode != http.StatusOK {
		b.Fatal(resp, err)
	}
	resp.Body.Close()
}

// A server is a process whose CPU time is measured.
type server struct {
	url      string
	pid      int
	client   *http.Client
	database func() time.Duration // the CPU time of its database server; nil: it has none
}

func startServer(b *testing.B, dir string, env []string, name string, args ...string) *server {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.Env = append(cmd.Env, "WATCHWORD_SERVER_ADDRESS="+address)
	if name == os.Args[0] {
		cmd.Env = append(os.Environ(), bareEnv+"="+address)
	}
	cmd.Stderr = &bytes.Buffer{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	s := &server{url: "http://" + address, pid: cmd.Process.Pid, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		resp, err := s.client.Get(s.url + "/readyz")
		if err == nil {
			resp.Body.Close()
		}
		if err == nil && resp.StatusCode != http.StatusServiceUnavailable { // which it is while it starts
			return s
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s does not come up: %v\n%s", name, err, cmd.Stderr)
		}
	}
}

// cpu is the CPU time that the process has taken, all its threads together, and that of its
// database server, to the nanosecond: /proc counts in hundredths of a second, of which a round of the bare
// server has five.
func (s *server) cpu(b *testing.B) time.Duration {
	var t unix.Timespec
	clock := int32(^s.pid<<3 | 2) // as clock_getcpuclockid(3) makes it
	if err := unix.ClockGettime(clock, &t); err != nil {
		b.Fatal(err)
	}
	if s.database != nil {
		return time.Duration(t.Nano()) + s.database()
	}
	return time.Duration(t.Nano())
}

// A call makes the i-th request of one caller.
type call func(s *server, caller int) *http.Request

// perCPUSecond is how many requests the server answers in a second of its CPU
// time.
func (s *server) perCPUSecond(b *testing.B, n int, request call, answered func(caller int, body []byte)) float64 {
	b.Helper()
	before := s.cpu(b)
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for range n / callers {
				resp, err := s.client.Do(request(s, caller))
				if err != nil {
					b.Error(err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK {
					b.Errorf("%s %s %v", resp.Status, body, err)
					return
				}
				if answered != nil {
					answered(caller, body)
				}
			}
		})
	}
	wg.Wait()
	return float64(n/callers*callers) / (s.cpu(b) - before).Seconds()
}

// compare measures both servers in turn and reports the medians and their ratio.
func compare(b *testing.B, n int, watchword, bare *server, path string, request call, answered func(int, []byte)) {
	bareRequest := func(s *server, caller int) *http.Request {
		r := request(s, caller)
		r.URL.Path = path
		return r
	}
	for b.Loop() {
		var ours, theirs []float64
		for round := range rounds + 1 {
			o := watchword.perCPUSecond(b, n, request, answered)
			t := bare.perCPUSecond(b, n, bareRequest, nil)
			if round > 0 { // the first one warms up
				ours, theirs = append(ours, o), append(theirs, t)
			}
		}
		slices.Sort(ours)
		slices.Sort(theirs)
		b.ReportMetric(ours[rounds/2], "req/cpu-s")
		b.ReportMetric(theirs[rounds/2], "bare-req/cpu-s")
		b.ReportMetric(100*ours[rounds/2]/theirs[rounds/2], "%of-bare")
		b.ReportMetric(0, "ns/op")
	}
}

func post(s *server, path string, body any) *http.Request {
	encoded, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	r, err := http.NewRequest(http.MethodPost, s.url+path, bytes.NewReader(encoded))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Content-Type", "application/json")
	return r
}

func get(s *server, path string) *http.Request {
	r, err := http.NewRequest(http.MethodGet, s.url+path, nil)
	if err != nil {
		panic(err)
	}
	return r
}

type grant struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
}

// servers starts a Watchword with an administrator, and a bare server.
func servers(b *testing.B, env ...string) (watchword, bare *server, grants [callers]grant) {
	b.Helper()
	dir := b.TempDir()
	binary := filepath.Join(dir, "watchword")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/watchword").CombinedOutput(); err != nil {
		b.Fatalf("%s %v", out, err)
	}
	env = append(env, "ADMIN_GUI_USERNAME=admin", "ADMIN_GUI_PASSWORD="+password, "WATCHWORD_TOKENS_RENEW_GRACE=10ms",
		"WATCHWORD_SESSIONS_MAX_PER_USER=0", "WATCHWORD_SERVER_MAX_REQUESTS_PER_USER=1000",
		// Attempts are counted, and there may be as many as a benchmark makes.
		"WATCHWORD_LIMITS_LOGIN_PER_ADDRESS=1000000/1s", "WATCHWORD_LIMITS_LOGIN_PER_ACCOUNT=1000000/1s")
	watchword = startServer(b, dir, env, binary, "serve")
	bare = startServer(b, dir, nil, os.Args[0])
	for i := range grants {
		grants[i] = logIn(b, watchword)
	}
	return watchword, bare, grants
}

func logIn(b *testing.B, watchword *server) (g grant) {
	b.Helper()
	resp, err := watchword.client.Do(post(watchword, "/api/login", map[string]string{"username": "admin", "password": password}))
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&g); err != nil || g.AccessToken == "" {
		b.Fatal(resp.Status, err)
	}
	return g
}

// A token that comes for the first time, beside the verification of a signature.
func BenchmarkHTTPVerifyFirst(b *testing.B) {
	watchword, bare, grants := servers(b)
	const n = requests
	var fresh [callers][]string
	var turn [callers]int
	for caller := range callers {
		for range (rounds + 1) * n / callers { // bare is asked with the same ones again
			resp, err := watchword.client.Do(post(watchword, "/api/renew", map[string]string{"refresh_token": grants[caller].RefreshToken}))
			if err != nil {
				b.Fatal(err)
			}
			err = json.NewDecoder(resp.Body).Decode(&grants[caller])
			resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK {
				b.Fatal(resp.Status, err)
			}
			fresh[caller] = append(fresh[caller], grants[caller].AccessToken)
		}
	}
	compare(b, n, watchword, bare, "/verify", func(s *server, caller int) *http.Request {
		r := get(s, "/api/verify")
		r.Header.Set("Authorization", "Bearer "+fresh[caller][turn[caller]%len(fresh[caller])])
		if s == watchword {
			turn[caller]++
		}
		return r
	}, nil)
}

// A token that comes again, beside a handler that writes the same answer and does nothing
// else.
func BenchmarkHTTPVerifyAgain(b *testing.B) {
	watchword, bare, grants := servers(b)
	again := func(s *server, caller int) *http.Request {
		r := get(s, "/api/verify")
		r.Header.Set("Authorization", "Bearer "+grants[caller].AccessToken)
		return r
	}
	replay(b, watchword, bare, again(watchword, 0))
	compare(b, 4*requests, watchword, bare, "/replay", again, nil)
}

// Each caller renews its sessions in turn: one that renews all the time carries its
// last spent tokens with it, which no client does.
func BenchmarkHTTPRenew(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) {
		watchword, bare, _ := servers(b)
		renewals(b, watchword, bare)
	})
	b.Run("postgres", func(b *testing.B) {
		url := testenv.Postgres(b)
		watchword, bare, _ := servers(b, "DATABASE_URL="+url, "WATCHWORD_STORAGE_KEY="+base64.StdEncoding.EncodeToString(make([]byte, 32)))
		watchword.database = postgresCPU(b, url)
		renewals(b, watchword, bare)
	})
}

// postgresCPU returns the CPU time that all processes of a PostgreSQL server have taken. Each
// connection has a process of its own.
func postgresCPU(b *testing.B, url string) func() time.Duration {
	b.Helper()
	conn, err := pgx.Connect(b.Context(), url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close(context.Background()) })
	var backend int
	if err := conn.QueryRow(b.Context(), "SELECT pg_backend_pid()").Scan(&backend); err != nil {
		b.Fatal(err)
	}
	server := parentOf(backend)
	return func() (sum time.Duration) {
		stats, err := filepath.Glob("/proc/[0-9]*/schedstat")
		if err != nil {
			b.Fatal(err)
		}
		for _, path := range stats {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if pid != server && parentOf(pid) != server {
				continue
			}
			text, _ := os.ReadFile(path) // nanoseconds on a processor come first
			var took int64
			_, _ = fmt.Sscan(string(text), &took) // it may have ended meanwhile
			sum += time.Duration(took)
		}
		return sum
	}
}

// parentOf is the parent of a process, or 0 if that has ended.
func parentOf(pid int) (parent int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	var state string
	_, _ = fmt.Sscan(rest, &state, &parent)
	return parent
}

func renewals(b *testing.B, watchword, bare *server) {
	var grants [callers][sessions]grant
	for caller := range callers {
		for i := range sessions {
			grants[caller][i] = logIn(b, watchword)
		}
	}
	var turn [callers]int
	compare(b, 2*requests, watchword, bare, "/renew", func(s *server, caller int) *http.Request {
		turn[caller]++
		return post(s, "/api/renew", map[string]string{"refresh_token": grants[caller][turn[caller]%sessions].RefreshToken})
	}, func(caller int, body []byte) {
		if err := json.Unmarshal(body, &grants[caller][turn[caller]%sessions]); err != nil {
			b.Error(err)
		}
	})
}

func BenchmarkHTTPKeySet(b *testing.B) {
	watchword, bare, _ := servers(b)
	compare(b, 20*requests, watchword, bare, "/pkeys", func(s *server, _ int) *http.Request { return get(s, "/api/pkeys") }, nil)
}

func BenchmarkHTTPLogin(b *testing.B) {
	watchword, bare, _ := servers(b)
	compare(b, 40, watchword, bare, "/login", func(s *server, _ int) *http.Request {
		return post(s, "/api/login", map[string]string{"username": "admin", "password": password})
	}, nil)
}
