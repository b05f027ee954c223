// Command up starts a cluster to play with on this machine: PostgreSQL, Redis,
// three replicas and a load balancer in front of them, all on free ports. It prints
// where everything is, and stops everything when it ends, however it ends.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
)

const (
	replicas  = 3
	logs      = "data/cluster"
	startTime = time.Minute
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: up WATCHWORD (the command to run)")
		os.Exit(2)
	}
	// What is started dies with the thread that started it; this one lives as long
	// as the process.
	runtime.LockOSThread()
	// And this process ends with make, if that is killed.
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0); errno != 0 {
		fmt.Fprintln(os.Stderr, "cluster:", errno)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	t := &terminal{ctx: ctx}
	err := up(t, os.Args[1])
	t.cleanUp()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func up(t *terminal, command string) error {
	fmt.Println("starting PostgreSQL, Redis, HAProxy …")
	database, redis := testenv.StartPostgres(t), testenv.StartRedis(t)
	var addresses []string
	for range replicas {
		addr, err := freeAddress()
		if err != nil {
			return err
		}
		addresses = append(addresses, addr)
	}
	balancer := testenv.HAProxy(t, addresses...)
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return err
	}
	password, secret := rand.Text(), rand.Text()+rand.Text()
	var running sync.WaitGroup // of what stops the replicas
	defer running.Wait()
	ended := make(chan error, replicas)
	for i, addr := range addresses {
		env := append(os.Environ(),
			"WATCHWORD_SERVER_ADDRESS="+addr, "WATCHWORD_SERVER_PUBLIC_URL="+balancer.URL,
			"WATCHWORD_SERVER_TRUSTED_PROXIES=127.0.0.1", "WATCHWORD_SERVER_DRAIN_DELAY=1s",
			"DATABASE_URL="+database.URL, "REDIS_URL="+redis.URL,
			"WATCHWORD_CLUSTER_ENABLED=true", "AUTH_CLUSTER_SECRET="+secret, fmt.Sprintf("WATCHWORD_CLUSTER_INSTANCE_ID=auth-%d", i), "WATCHWORD_CLUSTER_ADVERTISE_URL=http://"+addr,
			// A replica that joins is ready after this, not after half a minute.
			"WATCHWORD_TOKENS_KEY_SET_MAX_AGE=5s",
			"ADMIN_GUI_USERNAME=admin", "ADMIN_GUI_PASSWORD="+password)
		stop, err := start(command, i, env, ended)
		if err != nil {
			return err
		}
		defer running.Go(stop)
	}
	fmt.Println("starting three replicas …")
	for i, addr := range addresses {
		if err := awaitReady(t.ctx, addr, ended); err != nil {
			return fmt.Errorf("replica %d: %w; its log is %s", i, err, logFile(i))
		}
	}
	show(balancer.URL, addresses, password)
	select {
	case <-t.ctx.Done():
		fmt.Println("\nstopping …")
		return nil
	case err := <-ended:
		return err
	}
}

func show(balancer string, addresses []string, password string) {
	fmt.Printf("\nThe cluster is reached at %s, and its replicas at\n", balancer)
	for i, addr := range addresses {
		fmt.Printf("  auth-%d  http://%s  log: %s\n", i, addr, logFile(i))
	}
	fmt.Printf(`
    username: admin
    password: %[2]s

Try, in another terminal: one replica issues, all recognise, and a second after the
logout none does.

  TOKEN=$(curl -s %[1]s/api/login -d '{"username":"admin","password":"%[2]s"}' | grep -o 'eyJ[^"]*')
`, balancer, password)
	for _, addr := range addresses {
		fmt.Printf("  curl -s http://%s/api/verify -H \"Authorization: Bearer $TOKEN\"\n", addr)
	}
	fmt.Printf(`  curl -s %[1]s/api/pkeys
  curl -s -X POST %[1]s/api/logout -H "Authorization: Bearer $TOKEN"

Ctrl-C stops everything.
`, balancer)
}

func logFile(i int) string { return filepath.Join(logs, fmt.Sprintf("auth-%d.log", i)) }

// start runs a replica, and tells ended when it has ended. stop ends it.
func start(command string, i int, env []string, ended chan<- error) (stop func(), err error) {
	log, err := os.OpenFile(logFile(i), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(command, "serve")
	cmd.Env, cmd.Stdout, cmd.Stderr = env, log, log
	// In a group of its own, so that Ctrl-C reaches only us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		ended <- fmt.Errorf("replica %d ended (%v); its log is %s", i, cmd.Wait(), logFile(i))
	}()
	return func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-gone:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-gone
		}
	}, nil
}

func awaitReady(ctx context.Context, addr string, ended <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	client := &http.Client{Timeout: 2 * time.Second}
	for {
		resp, err := client.Get("http://" + addr + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New("it is not ready")
		}
		select {
		case <-ctx.Done():
			return err
		case err := <-ended:
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// terminal is what package testenv needs of a test.
type terminal struct {
	testing.TB
	ctx      context.Context
	cleanups []func()
}

func (t *terminal) Helper()                  {}
func (t *terminal) Context() context.Context { return context.WithoutCancel(t.ctx) }

func (t *terminal) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

func (t *terminal) cleanUp() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
	t.cleanups = nil
}

func (t *terminal) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	t.cleanUp()
	os.Exit(1)
}

func (t *terminal) Fatalf(format string, args ...any) { t.Fatal(fmt.Sprintf(format, args...)) }
