// Command up starts a cluster to play with on this machine: PostgreSQL, Redis,
// three replicas and a load balancer in front of them, all on free ports. It prints
// where everything is, and stops everything when it ends, however it ends. A replica may be
// killed: the others go on, and it is started again when its name is typed.
//
// With arguments, such as "bench --admin admin", the command is run with them and the URLs of
// the replicas when all are ready, the administrator's password at its standard input; then
// everything stops, with the status of the command.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
)

const (
	replicas  = 3
	logs      = "data/cluster"
	startTime = 2 * time.Minute
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: up WATCHWORD [ARGUMENT...] (the command to run)")
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
	err := up(t, os.Args[1], os.Args[2:])
	t.cleanUp()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// A demo is the cluster that is played with. All but its channels belong to the main
// goroutine.
type demo struct {
	ctx      context.Context
	command  string
	balancer string
	password string
	replicas []*replica
	ended    chan *run
	ready    chan *run
	late     chan *run // has not become ready in startTime
	then     []string  // arguments of the command when all are ready; none: there is nothing to run
	done     chan error
	shown    bool // everything was started once, and said where it is
}

// A replica is one of the cluster, under one name and address however often it is started.
type replica struct {
	name, addr string
	settings   []string
	run        *run // nil: it does not run
	wasReady   bool // once
}

// A run is one process of a replica.
type run struct {
	*replica
	cmd  *exec.Cmd
	gone chan struct{} // closed when the process has ended
	err  error         // how, then
}

func up(t *terminal, command string, then []string) error {
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
	d := &demo{
		ctx: t.ctx, command: command, balancer: balancer.URL, password: rand.Text(),
		ended: make(chan *run), ready: make(chan *run), late: make(chan *run),
		then: then, done: make(chan error, 1),
	}
	secret := rand.Text() + rand.Text()
	// All that is not named here has the default that every deployment gets.
	for i, addr := range addresses {
		r := &replica{name: fmt.Sprintf("auth-%d", i), addr: addr}
		r.settings = []string{
			"WATCHWORD_SERVER_ADDRESS=" + addr, "WATCHWORD_SERVER_PUBLIC_URL=" + balancer.URL, "WATCHWORD_SERVER_TRUSTED_PROXIES=127.0.0.1",
			"WATCHWORD_SERVER_FORWARDED_HEADER=X-Forwarded-For",
			"DATABASE_URL=" + database.URL, "REDIS_URL=" + redis.URL,
			"WATCHWORD_CLUSTER_ENABLED=true", "AUTH_CLUSTER_SECRET=" + secret, "WATCHWORD_CLUSTER_INSTANCE_ID=" + r.name,
			"WATCHWORD_CLUSTER_ADVERTISE_URL=http://" + addr,
			"ADMIN_GUI_USERNAME=admin", "ADMIN_GUI_PASSWORD=" + d.password,
		}
		_ = os.Remove(r.log()) // an earlier demonstration's
		if err := writeSettings(r); err != nil {
			return err
		}
		d.replicas = append(d.replicas, r)
	}
	defer d.stop()
	for _, r := range d.replicas {
		if err := d.start(r); err != nil {
			return err
		}
	}
	fmt.Println("starting three replicas; each is ready when its signing key has been in the key set for tokens.key_set_max_age (30 s by default) …")
	return d.follow(readLines())
}

// follow says what happens to the replicas, and does as it is asked, until ctx ends.
func (d *demo) follow(lines <-chan string) error {
	for {
		select {
		case <-d.ctx.Done():
			fmt.Println("\nstopping …")
			return nil
		case err := <-d.done:
			return err
		case r := <-d.ended:
			if err := d.hasEnded(r); err != nil {
				return err
			}
		case r := <-d.ready:
			d.isReady(r)
		case r := <-d.late:
			fmt.Printf("%s is not ready after %s; its log is %s\n", r.name, startTime, r.log())
		case line, ok := <-lines:
			if !ok {
				lines = nil // there is nobody at standard input; what runs goes on
				continue
			}
			if err := d.do(strings.TrimSpace(line)); err != nil {
				return err
			}
		}
	}
}

// hasEnded says that a replica has ended, and how to have it again. It returns an error for
// one that gave up by itself before it was ever ready: that is no experiment.
func (d *demo) hasEnded(r *run) error {
	r.replica.run = nil
	if !r.wasReady && r.cmd.ProcessState.Exited() {
		return fmt.Errorf("%s could not start (%v); its log is %s", r.name, r.err, r.log())
	}
	fmt.Printf("\n%s, process %d, has ended: %v. The others go on, and accept the tokens that it has issued.\n"+
		"Its log is %s. To start it again, type %s and Enter.\n", r.name, r.cmd.Process.Pid, r.err, r.log(), r.name)
	d.showOnce()
	return nil
}

func (d *demo) isReady(r *run) {
	r.wasReady = true
	switch {
	case r.replica.run != r: // it has ended meanwhile, which was said
	case !d.shown:
		d.showOnce()
	default:
		fmt.Printf("%s is ready, process %d.\n", r.name, r.cmd.Process.Pid)
		d.status()
	}
}

// showOnce says where everything is, when all replicas that run are ready.
func (d *demo) showOnce() {
	for _, r := range d.replicas {
		if d.shown || r.run != nil && !r.wasReady {
			return
		}
	}
	d.shown = true
	if len(d.then) > 0 {
		d.run()
		return
	}
	d.show()
	d.status()
}

// run runs the command with its arguments. It is called by the main goroutine, with whose
// thread the process would die.
func (d *demo) run() {
	args := slices.Clone(d.then)
	for _, r := range d.replicas {
		args = append(args, "http://"+r.addr)
	}
	cmd := exec.CommandContext(d.ctx, d.command, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(d.password+"\n"), os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		d.done <- err
		return
	}
	go func() { d.done <- cmd.Wait() }()
}

// do does what was typed.
func (d *demo) do(line string) error {
	switch line {
	case "":
		return nil
	case "status":
		d.status()
		return nil
	}
	for _, r := range d.replicas {
		switch {
		case r.name != line:
		case r.run != nil:
			fmt.Printf("%s runs, as process %d.\n", r.name, r.run.cmd.Process.Pid)
			return nil
		default:
			if err := d.start(r); err != nil {
				return err
			}
			fmt.Printf("%s starts, as process %d …\n", r.name, r.run.cmd.Process.Pid)
			return nil
		}
	}
	fmt.Println("Type status, or the name of a replica that has ended, such as auth-0, to start it again.")
	return nil
}

func (d *demo) show() {
	fmt.Printf("\nThe cluster is reached at %s, and its replicas at\n", d.balancer)
	for _, r := range d.replicas {
		pid := "ended"
		if r.run != nil {
			pid = fmt.Sprint("pid ", r.run.cmd.Process.Pid)
		}
		fmt.Printf("  %s  http://%s  %s  log: %s\n", r.name, r.addr, pid, r.log())
	}
	fmt.Printf("\nWhat %s is set to; all else has its default:\n", d.replicas[0].name)
	for _, s := range d.replicas[0].settings {
		if name, _, _ := strings.Cut(s, "="); name == "AUTH_CLUSTER_SECRET" {
			s = name + "=… (in " + d.replicas[0].file("env") + ")"
		}
		fmt.Println("  " + s)
	}
	fmt.Printf(`
    username: admin
    password: %[2]s

Try, in another terminal: one replica issues, all recognise, and a second after the
logout none does.

  TOKEN=$(curl -s %[1]s/api/login -d '{"username":"admin","password":"%[2]s"}' | grep -o 'eyJ[^"]*')
`, d.balancer, d.password)
	for _, r := range d.replicas {
		fmt.Printf("  curl -s http://%s/api/verify -H \"Authorization: Bearer $TOKEN\"\n", r.addr)
	}
	fmt.Printf(`  curl -s %[1]s/api/pkeys
  curl -s -X POST %[1]s/api/logout -H "Authorization: Bearer $TOKEN"
  (set -a; . %[2]s; %[3]s cluster status)

Kill a replica (kill -9 and its pid), and see that the others go on. Here, type its name and
Enter to start it again, or status. Ctrl-C stops everything.

`, d.balancer, d.replicas[0].file("env"), d.command)
}

// status shows what the registry of the cluster has.
func (d *demo) status() {
	cmd := exec.CommandContext(d.ctx, d.command, "cluster", "status")
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), d.replicas[0].settings...), os.Stdout, os.Stdout
	fmt.Println("$ watchword cluster status")
	if err := cmd.Run(); err != nil && d.ctx.Err() == nil {
		fmt.Println("cluster status:", err) // the replicas go on
	}
}

func (r *replica) file(ending string) string { return filepath.Join(logs, r.name+"."+ending) }
func (r *replica) log() string               { return r.file("log") }

// writeSettings writes a replica's settings as a shell reads them.
func writeSettings(r *replica) error {
	var text strings.Builder
	for _, s := range r.settings {
		name, value, _ := strings.Cut(s, "=")
		fmt.Fprintf(&text, "%s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
	}
	return os.WriteFile(r.file("env"), []byte(text.String()), 0o600)
}

// start runs a replica. It is called by the main goroutine, with whose thread the process
// would die.
func (d *demo) start(r *replica) error {
	log, err := os.OpenFile(r.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(d.command, "serve")
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), r.settings...), log, log
	// In a group of its own, so that Ctrl-C reaches only us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	one := &run{replica: r, cmd: cmd, gone: make(chan struct{})}
	r.run = one
	go func() {
		one.err = cmd.Wait()
		close(one.gone)
		d.tell(d.ended, one)
	}()
	go d.awaitReady(one)
	return nil
}

// tell sends unless everything stops.
func (d *demo) tell(to chan<- *run, r *run) {
	select {
	case to <- r:
	case <-d.ctx.Done():
	}
}

func (d *demo) awaitReady(r *run) {
	patience := time.NewTimer(startTime)
	defer patience.Stop()
	client := &http.Client{Timeout: 2 * time.Second}
	for {
		resp, err := client.Get("http://" + r.addr + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				d.tell(d.ready, r)
				return
			}
		}
		select {
		case <-d.ctx.Done():
			return
		case <-r.gone:
			return
		case <-patience.C:
			d.tell(d.late, r)
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop ends all replicas that run.
func (d *demo) stop() {
	var stopping sync.WaitGroup
	for _, r := range d.replicas {
		if r.run == nil {
			continue
		}
		stopping.Go(func() {
			_ = r.run.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
			select {
			case <-r.run.gone:
			case <-time.After(10 * time.Second):
				_ = r.run.cmd.Process.Kill()
				<-r.run.gone
			}
		})
	}
	stopping.Wait()
}

// readLines returns what is typed. The channel is closed at the end of standard input, and if
// this process may not read it, because it was put into the background.
func readLines() <-chan string {
	signal.Ignore(syscall.SIGTTIN)
	lines := make(chan string)
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			lines <- in.Text()
		}
	}()
	return lines
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
