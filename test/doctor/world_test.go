package doctor

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/app"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/doctor"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
)

// publicHost is the host of server.public_url, which leads to one of the load balancer's ports.
const publicHost = "auth.example.com"

// A world is a cluster of three replicas on a PostgreSQL and a Redis, and what stands before
// them.
type world struct {
	database  string // its URL
	redis     *testenv.Server
	config    *config.Config // of a replica, without its name
	replicas  []*member
	cert, key string            // PEM; for publicHost
	addresses map[string]string // host:port by the name of what listens there
}

// address is where something listens, or will.
func (w *world) address(t *testing.T, name string) string {
	t.Helper()
	if w.addresses[name] == "" {
		w.addresses[name] = testenv.Address(t)
	}
	return w.addresses[name]
}

// A member is a replica in the test's process.
type member struct {
	url    string
	addr   string
	config *config.Config
	log    testenv.Log
	node   *app.Node
	server *http.Server
}

// newWorld starts the cluster, with settings and servers of which no check finds anything.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		redis:     testenv.StartRedis(t, "--appendonly", "yes"),
		addresses: map[string]string{},
	}
	w.database = serviceDatabase(t, testenv.StartPostgres(t, "fsync=on", "full_page_writes=on"))
	certFile, keyFile := testenv.SelfSigned(t, publicHost)
	w.cert, w.key = read(t, certFile), read(t, keyFile)
	w.config = w.settings(t, certFile)
	for i := range 3 {
		w.replicas = append(w.replicas, w.start(t, fmt.Sprintf("auth-%d", i), app.Options{Version: "test"}, nil))
	}
	return w
}

// serviceDatabase makes a database of a role that has no other rights, and returns its URL.
func serviceDatabase(t *testing.T, server *testenv.Server) string {
	t.Helper()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("pgx", server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	password := rand.Text()
	for _, statement := range []string{
		"CREATE ROLE service LOGIN PASSWORD '" + password + "'",
		"CREATE DATABASE service OWNER service",
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	u.User, u.Path = url.UserPassword("service", password), "/service"
	return u.String()
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// settings are those of all replicas.
func (w *world) settings(t *testing.T, ca string) *config.Config {
	cfg := config.Default()
	kit.StoredKeys(cfg)
	cfg.Database.URL, cfg.Redis.URL = w.database, w.redis.URL
	cfg.Server.PublicURL, cfg.Server.TrustedProxies, cfg.Server.ForwardedHeader = "https://"+publicHost, []string{"127.0.0.1"}, config.ForwardedFor
	cfg.Cluster.Enabled, cfg.Cluster.Secret, cfg.Cluster.CAFile = true, kit.ClusterSecret, ca
	cfg.Admin.Username, cfg.Admin.Password = "admin", kit.Password
	cfg.Revocation.Poll, cfg.Revocation.MaxStaleness = 200*time.Millisecond, 30*time.Second
	cfg.Server.DrainDelay = 5 * time.Second
	return cfg
}

// start starts a replica and waits until it is ready, unless a change of its settings makes it
// another one than those of the cluster.
func (w *world) start(t *testing.T, name string, o app.Options, change func(*config.Config)) *member {
	t.Helper()
	r := &member{addr: w.address(t, name)}
	r.url = "http://" + r.addr
	cfg := *w.config
	cfg.Cluster.InstanceID, cfg.Cluster.AdvertiseURL = name, r.url
	if change != nil {
		change(&cfg)
	}
	cfg.Complete()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), kit.Patience)
	defer cancel()
	o.Config, o.Logger = &cfg, slog.New(slog.NewJSONHandler(&r.log, nil))
	node, err := app.New(ctx, o)
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, r.log.Tail())
	}
	l, err := net.Listen("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	r.config, r.node, r.server = &cfg, node, &http.Server{Handler: node.Handler()}
	go r.server.Serve(l)
	t.Cleanup(r.stop)
	if change == nil {
		if err := node.WaitReady(ctx); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, r.log.Tail())
		}
	}
	return r
}

// stop ends a replica.
func (r *member) stop() {
	r.node.Drain()
	_ = r.server.Close()
	_ = r.node.Close()
}

// A plan is what is looked at, and how.
type plan struct {
	config func(*config.Config) // of the doctor; nil: that of the replicas
	peers  []string             // the URLs of the replicas; nil: those of the registry
	front  string               // to which address https of publicHost leads; empty: "good"
	plain  string               // the same for http; empty: "redirect"
	change func(*doctor.Deployment)
}

// examine opens a deployment as "watchword doctor" does and runs some checks, all if none is named.
func (w *world) examine(t *testing.T, p plan, ids ...string) []doctor.Result {
	t.Helper()
	cfg := *w.replicas[0].config
	if p.config != nil {
		p.config(&cfg)
	}
	d, closeAll, err := operator.OpenDeployment(t.Context(), &cfg, slog.New(slog.DiscardHandler), p.peers)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll()
	ports := map[string]string{
		publicHost + ":443": w.addresses[cmp.Or(p.front, "good")],
		publicHost + ":80":  w.addresses[cmp.Or(p.plain, "redirect")],
	}
	transport := d.Front.Transport.(*http.Transport)
	transport.Proxy = nil
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		// A client that is no proxy of the replicas.
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		return from.DialContext(ctx, network, ports[addr])
	}
	if p.change != nil {
		p.change(d)
	}
	checks := doctor.Checks()
	if len(ids) > 0 {
		checks = slices.DeleteFunc(checks, func(c doctor.Check) bool { return !slices.Contains(ids, c.ID) })
	}
	return doctor.Run(t.Context(), d, checks)
}

// proxies starts a HAProxy and an nginx, which listen at an address for each way in which a load
// balancer can be set up.
func (w *world) proxies(t *testing.T) {
	t.Helper()
	other, otherKey := testenv.SelfSigned(t, "www.example.com")
	var text strings.Builder
	text.WriteString(haproxyBegin)
	for _, f := range []struct{ name, frontend, backend string }{
		{"good", good, "all"},
		{"other-certificate", strings.Replace(good, "good.pem", "other.pem", 1), "all"},
		{"open", "  bind AT ssl crt DIR/good.pem\n  option forwardfor\n", "all"},
		{"passing-on", strings.Replace(good, "  option forwardfor\n", "", 1), "all"},
		{"no-health", good + "  http-request deny deny_status 404 if { path /health }\n", "all"},
		{"redirect", "  bind AT\n  http-request redirect scheme https\n", "all"},
		{"one", good, "one"},
		{"before-stranger", good, "stranger"},
		{"before-elsewhere", good, "elsewhere"},
		{"before-different", good, "different"},
	} {
		fmt.Fprintf(&text, "frontend %s\n%s  default_backend %s\n", f.name, strings.ReplaceAll(f.frontend, "AT", w.address(t, f.name)), f.backend)
	}
	all := []string{"auth-0", "auth-1", "auth-2"}
	for name, servers := range map[string][]string{
		"all": all, "one": all[:1], "stranger": {"auth-0", "stranger"}, "elsewhere": {"auth-0", "elsewhere"}, "different": {"different"},
	} {
		fmt.Fprintf(&text, "backend %s\n  balance roundrobin\n", name)
		for _, server := range servers {
			fmt.Fprintf(&text, "  server %s %s\n", server, w.address(t, server))
		}
	}
	w.addresses["plain"] = testenv.StartProxy(t, map[string]string{
		"haproxy.cfg": text.String(), "good.pem": w.cert + w.key, "other.pem": read(t, other) + read(t, otherKey),
	}, "haproxy", "-db", "-f", "DIR/haproxy.cfg").Addr

	conf := strings.NewReplacer("SMALL", w.address(t, "small"), "REPLICA", w.address(t, "auth-0")).Replace(nginx)
	w.addresses["holding-back"] = testenv.StartProxy(t, map[string]string{
		"good.pem": w.cert + w.key, "nginx.conf": conf,
	}, "nginx", "-e", "stderr", "-p", "DIR", "-c", "DIR/nginx.conf").Addr
}

const haproxyBegin = `global
  maxconn 1000
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 60s
  option http-no-delay
frontend plain
  bind LISTEN
  default_backend all
`

const good = `  bind AT ssl crt DIR/good.pem
  option forwardfor
  http-response set-header Strict-Transport-Security max-age=31536000
  http-request deny deny_status 404 if { path /metrics }
`

// nginx has a server that holds streams back, and one without room for long headers.
const nginx = `
daemon off;
pid DIR/pid;
error_log stderr;
worker_processes 1;
events {}
http {
	access_log off;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	ssl_certificate DIR/good.pem;
	ssl_certificate_key DIR/good.pem;
	proxy_set_header X-Forwarded-For $remote_addr;
	server {
		listen LISTEN ssl;
		proxy_ignore_headers X-Accel-Buffering;
		location / {
			proxy_pass http://REPLICA;
		}
	}
	server {
		listen SMALL ssl;
		large_client_header_buffers 4 4k;
		location / {
			proxy_pass http://REPLICA;
		}
	}
}
`
