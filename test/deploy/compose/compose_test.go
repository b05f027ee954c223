package compose

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/command"
	"github.com/watchword-auth/watchword/test/kit"
)

var program string // the command

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "watchword-compose")
	if err != nil {
		panic(err)
	}
	program = command.Build(filepath.Join(dir, "watchword"), "-ldflags=-s -w") // as it is released, and sooner built
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// What the parts of compose.yaml say of each other is so.
func TestCompose(t *testing.T) {
	p := readProject(t)
	names := p.replicas()
	if len(names) != 3 {
		t.Fatalf("the replicas are %v", names)
	}
	var peers []string
	for _, name := range names {
		s := p.Services[name]
		if s.Hostname != name || s.Image != p.Services["migrate"].Image {
			t.Errorf("%s: %+v", name, s)
		}
		peers = append(peers, "http://"+name+s.Environment["WATCHWORD_SERVER_ADDRESS"])
	}
	env := p.Replica.Environment
	if got := strings.Split(env["WATCHWORD_CLUSTER_STATIC_PEERS"], ","); !slices.Equal(got, peers) {
		t.Errorf("the peers are %v, and the replicas are %v", got, peers)
	}
	drain, err := time.ParseDuration(env["WATCHWORD_SERVER_DRAIN_DELAY"])
	if err != nil || p.Replica.StopGracePeriod < drain+31*time.Second {
		t.Errorf("a replica that drains for %s is killed after %s", drain, p.Replica.StopGracePeriod)
	}

	// HAProxy is believed, at an address that nobody else gets, and is reached from this machine alone.
	front := p.Networks["front"].IPAM.Config[0]
	address := netip.MustParseAddr(p.Services["haproxy"].Networks["front"].Address)
	if !netip.MustParsePrefix(front.Subnet).Contains(address) || netip.MustParsePrefix(front.IPRange).Contains(address) {
		t.Errorf("HAProxy has %s in %+v", address, front)
	}
	if got := env["WATCHWORD_SERVER_TRUSTED_PROXIES"]; got != address.String() {
		t.Errorf("%s is trusted, and HAProxy has %s", got, address)
	}
	if !p.Networks["back"].Internal {
		t.Error("the database can reach the world")
	}

	for name, s := range p.Services {
		if !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s may get new privileges", name)
		}
		ours := strings.HasPrefix(s.Image, "watchword:")
		if (ours || name == "haproxy") && (!s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"})) {
			t.Errorf("%s may do more than it must", name)
		}
		if ours {
			checkVariables(t, slices.Collect(maps.Keys(s.Environment))...)
		} else if _, tag, _ := strings.Cut(s.Image, ":"); tag == "" || tag == "latest" {
			t.Errorf("%s: %s names no version", name, s.Image)
		}
		for _, port := range s.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s is open to the world: %s", name, port)
			}
		}
		for other, on := range s.DependsOn {
			target, there := p.Services[other]
			healthy := on.Condition == "service_healthy" && target.Healthcheck != nil
			if !there || !healthy && (on.Condition != "service_completed_successfully" || target.Restart == "unless-stopped") {
				t.Errorf("%s waits in vain for %s", name, other)
			}
		}
		for network := range s.Networks {
			if _, there := p.Networks[network]; !there {
				t.Errorf("%s: there is no network %s", name, network)
			}
		}
		text := fmt.Sprint(s.Environment, s.Command)
		for _, file := range regexp.MustCompile(`/run/secrets/(\w+)`).FindAllStringSubmatch(text, -1) {
			if !slices.Contains(s.Secrets, file[1]) {
				t.Errorf("%s is not given the secret %s", name, file[1])
			}
		}
		for _, secret := range s.Secrets {
			if p.Secrets[secret].File != "secrets/"+secret {
				t.Errorf("%s: there is no secret %s", name, secret)
			}
			// The image of PostgreSQL runs a file that asks for this one.
			if !strings.Contains(text+read(t, docker+"/postgres.sql"), "/run/secrets/"+secret) {
				t.Errorf("%s does not use the secret %s", name, secret)
			}
		}
		for _, volume := range s.Volumes {
			if file, _, _ := strings.Cut(volume, ":"); strings.HasPrefix(file, "./") {
				read(t, filepath.Join(docker, file))
			} else if _, there := p.Volumes[file]; !there {
				t.Errorf("%s: there is no volume %s", name, file)
			}
		}
	}
	if on := p.Services["migrate"].DependsOn["postgres"].Condition; on != "service_healthy" {
		t.Errorf("the migration waits for %q", on)
	}
	for _, name := range names {
		if on := p.Services[name].DependsOn["migrate"].Condition; on != "service_completed_successfully" {
			t.Errorf("%s waits for %q of the migration", name, on)
		}
	}
}

// HAProxy's file is that of examples/balancer, which a test rolls replicas behind, but for names.
func TestHAProxyIsThatOfTheExamples(t *testing.T) {
	plain := func(text string) (lines []string) {
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
		return lines
	}
	ours := read(t, docker+"/haproxy.cfg")
	resolvers := regexp.MustCompile(`(?m)^resolvers docker\n(\t.*\n)+`)
	if !resolvers.MatchString(ours) {
		t.Error("HAProxy does not ask Docker for names")
	}
	got := plain(strings.NewReplacer(" resolvers docker init-addr none", "").Replace(resolvers.ReplaceAllString(ours, "")))
	want := plain(strings.NewReplacer("127.0.0.1:8000", ":8000", "127.0.0.1:8081", "auth-0:8080", "127.0.0.1:8082", "auth-1:8080",
		"127.0.0.1:8083", "auth-2:8080").Replace(read(t, root+"/examples/balancer/haproxy.cfg")))
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("it says %q, and examples/balancer %q", got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Errorf("it has %d lines, and examples/balancer %d", len(got), len(want))
	}
}

// What compose.yaml starts serves, in its order: the database is set up, migrated once, and three
// replicas share it behind HAProxy, with the secrets that secrets.sh makes.
func TestComposeRuns(t *testing.T) {
	p := readProject(t)
	dir := t.TempDir()
	secrets := makeSecrets(t, dir)

	// The image of PostgreSQL makes a superuser, and runs postgres.sql as that.
	superuser := testenv.StartPostgres(t)
	server, err := url.Parse(superuser.URL)
	if err != nil {
		t.Fatal(err)
	}
	const user = "app" // here the superuser has the name
	sql := filepath.Join(dir, "postgres.sql")
	write(t, sql, strings.NewReplacer("/run/secrets/", secrets+"/", "watchword ", user+" ", "watchword;", user+";").Replace(read(t, docker+"/postgres.sql")))
	run(t, nil, "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file="+sql, superuser.URL)
	health := slices.Clone(p.Services["postgres"].Healthcheck.Test[1:])
	run(t, nil, health[0], append(health[1:], "-p", server.Port())...)
	replace(t, filepath.Join(secrets, "database_url"), "//watchword:", "//"+user+":", "postgres:5432/watchword", server.Host+"/"+user)

	redis := testenv.Address(t)
	replace(t, filepath.Join(secrets, "redis_url"), "redis:6379", redis)
	startRedis(t, p, secrets, redis)

	migrate := p.Services["migrate"]
	here := []string{"/run/secrets/", secrets + "/", "172.30.53.2", "127.0.0.1", `:9090`, "127.0.0.1:0"}
	environ := func(s service, more ...string) []string {
		var list []string
		with := strings.NewReplacer(append(slices.Clone(here), more...)...)
		for _, e := range s.environ() {
			list = append(list, with.Replace(e))
		}
		return list
	}
	if out := run(t, environ(migrate), program, migrate.Command...); !strings.Contains(out, "applied ") {
		t.Errorf("the migration says %s", out)
	}
	if out := run(t, environ(migrate), program, migrate.Command...); !strings.Contains(out, "up to date") {
		t.Errorf("the second migration says %s", out)
	}

	names := p.replicas()
	var addresses, where []string
	for _, name := range names {
		address := testenv.Address(t)
		addresses, where = append(addresses, address), append(where, name+":8080", address)
	}
	log := &testenv.Log{}
	var processes []*command.Process
	for i, name := range names {
		replica := command.Serve(program, dir, addresses[i], log)
		// Nothing but what the container has.
		replica.Cmd.Env = environ(p.Services[name], append(where, ":8080", addresses[i])...)
		replica.Begin(t, replica.Cmd.Start)
		t.Cleanup(replica.Kill)
		processes = append(processes, replica)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	for i, replica := range processes {
		replica.IsReady(t, http.DefaultClient, "http://"+addresses[i], log)
	}
	balancer := testenv.StartProxy(t, map[string]string{
		"haproxy.cfg": strings.NewReplacer(append([]string{":8000", "LISTEN"}, where...)...).Replace(read(t, docker+"/haproxy.cfg")),
	}, "haproxy", "-db", "-f", "DIR/haproxy.cfg")
	all := &kit.Client{T: t, URL: balancer.URL, Log: log}
	ready := p.Services["haproxy"].Healthcheck.Test
	asked, err := url.Parse(ready[len(ready)-1])
	if err != nil {
		t.Fatal(err)
	}
	kit.Eventually(t, func() error {
		if a, err := all.Try(all.Request("GET", asked.Path, "", nil)); err != nil || a.Status != 200 {
			return fmt.Errorf("%d %s %v", a.Status, a.Body, err)
		}
		return nil
	})

	password := filepath.Join(dir, "password")
	write(t, password, kit.Password+"\n")
	add := exec.Command("sh", "-c", `exec "$0" user add alice --admin <"$1"`, program, password)
	add.Env, add.Dir = processes[0].Cmd.Env, dir
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("user add: %v\n%s", err, out)
	}
	grant := kit.Decode[httpapi.Grant](t, all.Want(all.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: "alice", Password: kit.Password}), 200, ""))
	for _, address := range addresses {
		one := &kit.Client{T: t, URL: "http://" + address, Log: log}
		kit.Eventually(t, func() error {
			if a, err := one.Try(one.Request("GET", "/api/verify", grant.AccessToken, nil)); err != nil || a.Status != 200 {
				return fmt.Errorf("%s: %d %s %v", address, a.Status, a.Body, err)
			}
			return nil
		})
		one.Want(one.Do("GET", "/health", "", nil), 200, "")
	}
	for _, replica := range processes {
		if err := replica.Stop(t, log); err != nil {
			t.Errorf("the replica ended with %v", err)
		}
	}
	for _, name := range []string{"database_url", "redis_url", "cluster_secret", "storage_key", "watchword_password"} {
		if strings.Contains(log.String(), strings.TrimSpace(read(t, filepath.Join(secrets, name)))) {
			t.Errorf("the secret %s stands in the log", name)
		}
	}
	if t.Failed() {
		t.Log(log.Tail())
	}
}

// makeSecrets runs secrets.sh in a copy of its directory, and returns where the secrets are.
func makeSecrets(t *testing.T, dir string) string {
	t.Helper()
	script := filepath.Join(dir, "secrets.sh")
	write(t, script, read(t, docker+"/secrets.sh"))
	run(t, nil, "sh", script)
	if out, err := exec.Command("sh", script).CombinedOutput(); err == nil {
		t.Errorf("secrets are made twice: %s", out)
	}
	secrets := filepath.Join(dir, "secrets")
	if info, err := os.Stat(secrets); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory of secrets: %v %v", info, err)
	}
	files, err := os.ReadDir(secrets)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o444 {
			t.Errorf("%s: %v %v", f.Name(), info, err)
		}
		names = append(names, f.Name())
	}
	if want := slices.Sorted(maps.Keys(readProject(t).Secrets)); !slices.Equal(names, want) {
		t.Errorf("secrets.sh makes %v, and compose.yaml has %v", names, want)
	}
	return secrets
}

// startRedis runs the command of compose.yaml.
func startRedis(t *testing.T, p *project, secrets, address string) {
	t.Helper()
	args := slices.Clone(p.Services["redis"].Command)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "/run/secrets/", secrets+"/")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	log := &testenv.Log{}
	cmd := exec.Command(args[0], append(args[1:], "--bind", host, "--port", port, "--dir", t.TempDir())...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // it ends by the signal
	health := slices.Clone(p.Services["redis"].Healthcheck.Test[1:])
	kit.Eventually(t, func() error {
		if out, err := exec.Command(health[0], append([]string{"-h", host, "-p", port}, health[1:]...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("%w %s\n%s", err, out, log.Tail())
		}
		return nil
	})
}

// run runs a program, in an environment of its own unless that is nil, and returns what it prints.
func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace replaces texts in a file, each of which must be there.
func replace(t *testing.T, file string, pairs ...string) {
	t.Helper()
	text := read(t, file)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%s has no %q", file, pairs[i])
		}
	}
	if err := os.Remove(file); err != nil { // it is read-only
		t.Fatal(err)
	}
	write(t, file, strings.NewReplacer(pairs...).Replace(text))
}
