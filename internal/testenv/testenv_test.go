package testenv

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestServers(t *testing.T) {
	for _, test := range []struct {
		name  string
		start func(t testing.TB) *Server
	}{
		{"postgres", func(t testing.TB) *Server { return StartPostgres(t) }},
		{"mariadb", func(t testing.TB) *Server { return StartMariaDB(t) }},
		{"redis", func(t testing.TB) *Server { return StartRedis(t) }},
		{"redis cluster", func(t testing.TB) *Server { return RedisCluster(t)[1] }},
		{"sentinel", func(t testing.TB) *Server { return RedisSentinel(t).Sentinel }},
		{"pgbouncer", func(t testing.TB) *Server { return PgBouncer(t, Postgres(t)) }},
		{"haproxy", func(t testing.TB) *Server { return HAProxy(t, freeAddr(t)) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := test.start(t)
			answers := func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				return s.answers(ctx)
			}
			s.Stop()
			if err := answers(); err == nil {
				t.Error("it answers after Stop")
			}
			addr := s.Addr
			s.Start(t)
			if s.Addr != addr {
				t.Errorf("it came back on %s, not %s", s.Addr, addr)
			}
			s.Pause(t)
			if err := answers(); err == nil {
				t.Error("it answers while it is paused")
			}
			s.Resume(t)
			await(t, "an answer after Resume", func() bool { return s.answers(t.Context()) == nil })
			for range 100 { // while its threads start up, to stop them as they run
				s.Pause(t)
				threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.process.pid))
				if err != nil || len(threads) == 0 {
					t.Fatalf("%d threads: %v", len(threads), err)
				}
				if slices.ContainsFunc(threads, runs) {
					t.Fatal("a thread of it runs on while it is paused")
				}
				s.Resume(t)
			}
		})
	}
}

func TestDatabasesAreEmpty(t *testing.T) {
	first := Postgres(t)
	execSQL(t, "pgx", first, "CREATE TABLE x (y int)")
	execSQL(t, "pgx", Postgres(t), "CREATE TABLE x (y int)")
	if one, two := MariaDB(t), MariaDB(t); one == two {
		t.Error("the same database twice")
	}
}

// A server that starts takes no temporary table of one that is being set up beside it.
func TestMariaDBsShareNoTemporaryDirectory(t *testing.T) {
	dir, err := os.MkdirTemp("", "watchword-shared-") // others must reach it, unlike t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	table := filepath.Join(dir, "#sql-temptable-1-2-3.MAI")
	if err := os.WriteFile(table, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	StartMariaDB(t)
	if _, err := os.Stat(table); err != nil {
		t.Error(err)
	}
}

// A server of somebody else on the port is not taken for ours.
func TestForeignServer(t *testing.T) {
	err := isOurs(t.Context(), "pgx", Postgres(t), "SHOW data_directory", t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "another server") {
		t.Errorf("error %v", err)
	}
}

// TestHang is the victim of TestCrash.
func TestHang(t *testing.T) {
	if os.Getenv("WATCHWORD_TEST_HANG") == "" {
		return
	}
	var servers []*Server
	for _, start := range []func(testing.TB) *Server{
		func(t testing.TB) *Server { return StartRedis(t) },
		func(t testing.TB) *Server { return StartPostgres(t) },
		func(t testing.TB) *Server { return StartMariaDB(t) },
	} {
		servers = append(servers, start(t))
	}
	servers[0].Pause(t)
	for _, s := range servers {
		fmt.Printf("\nserver %d %s %s\n", s.process.pid, s.Addr, s.dir)
	}
	select {}
}

// However the test process ends, its servers and directories go with it.
func TestCrash(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestHang$")
	cmd.Env = append(os.Environ(), "WATCHWORD_TEST_HANG=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	type server struct {
		pid       int
		addr, dir string
	}
	var servers []server
	for lines := bufio.NewScanner(out); len(servers) < 3 && lines.Scan(); {
		var s server
		if n, _ := fmt.Sscanf(lines.Text(), "server %d %s %s", &s.pid, &s.addr, &s.dir); n == 3 {
			servers = append(servers, s)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	if len(servers) != 3 {
		t.Fatalf("%d servers started", len(servers))
	}
	for _, s := range servers {
		for deadline := time.Now().Add(startTime); ; time.Sleep(10 * time.Millisecond) {
			_, dirErr := os.Stat(s.dir)
			l, err := net.Listen("tcp", s.addr)
			if err == nil {
				l.Close()
			}
			if dirErr != nil && err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("still there: process %d on %s (%v), %s", s.pid, s.addr, err, s.dir)
			}
		}
	}
}

// A database is usable with the ordinary client.
func TestPgBouncer(t *testing.T) {
	db, err := sql.Open("pgx", PgBouncer(t, Postgres(t)).URL+"&default_query_exec_mode=exec")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var n int
	if err := db.QueryRowContext(t.Context(), "SELECT $1::int + 1", 41).Scan(&n); err != nil || n != 42 {
		t.Errorf("%d, %v", n, err)
	}
}

// What looks like a name in a configuration is left alone in a certificate.
func TestCertificatesAreWrittenAsTheyAre(t *testing.T) {
	t.Parallel()
	certificate := "-----BEGIN CERTIFICATE-----\nMIIBDIRxLISTENzz\n-----END CERTIFICATE-----\n"
	s := StartProxy(t, map[string]string{
		"haproxy.cfg": "defaults\n  mode http\n  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\nfrontend front\n  bind LISTEN\n  http-request return status 200 content-type text/plain file DIR/a.pem\n",
		"a.pem":       certificate,
	}, "haproxy", "-db", "-f", "DIR/haproxy.cfg")
	res, err := http.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got, err := io.ReadAll(res.Body); err != nil || string(got) != certificate {
		t.Errorf("%q %v", got, err)
	}
}
