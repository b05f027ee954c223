// Package balancer tests that replicas can be replaced, one after the other, behind a real
// HAProxy, nginx and Caddy with these configurations, and that what needs no database is
// served without one.
package balancer

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/command"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

var (
	//go:embed haproxy.cfg
	haproxyCfg string
	//go:embed nginx.conf
	nginxConf string
	//go:embed Caddyfile
	caddyfile string
	//go:embed traefik.yaml
	traefikStatic string
	//go:embed traefik-dynamic.yaml
	traefikDynamic string
	//go:embed envoy.yaml
	envoyYAML string

	program string // the command
)

// aroundNginx stands for /etc/nginx/nginx.conf, which includes the configuration.
const aroundNginx = `
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
	include DIR/watchword.conf;
}
`

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "watchword-balancer")
	if err != nil {
		panic(err)
	}
	program = command.Build(filepath.Join(dir, "watchword"))
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// A balancer is one proxy, and a client of it.
type balancer struct {
	kit.Client
	name string
}

// start starts a proxy of each kind before replicas.
func start(t *testing.T, replicas []string) []*balancer {
	t.Helper()
	here := strings.NewReplacer("127.0.0.1:8000", "LISTEN", "127.0.0.1:8081", replicas[0], "127.0.0.1:8082", replicas[1], "127.0.0.1:8083", replicas[2])
	var all []*balancer
	for name, s := range map[string]*testenv.Server{
		"haproxy": testenv.StartProxy(t, map[string]string{"haproxy.cfg": here.Replace(haproxyCfg)}, "haproxy", "-db", "-f", "DIR/haproxy.cfg"),
		"nginx": testenv.StartProxy(t, map[string]string{"nginx.conf": aroundNginx, "watchword.conf": here.Replace(nginxConf)},
			"nginx", "-e", "stderr", "-p", "DIR", "-c", "DIR/nginx.conf"),
		"caddy": testenv.StartProxy(t, map[string]string{"Caddyfile": here.Replace(caddyfile)},
			"env", "HOME=DIR", "XDG_CONFIG_HOME=DIR", "XDG_DATA_HOME=DIR", "caddy", "run", "--config", "DIR/Caddyfile", "--adapter", "caddyfile"),
	} {
		transport := &http.Transport{}
		t.Cleanup(transport.CloseIdleConnections)
		all = append(all, &balancer{kit.Client{T: t, URL: s.URL, HTTP: &http.Client{Transport: transport}}, name})
	}
	return all
}

// works waits until logins come through, and so the proxy knows of a replica.
func (b *balancer) works() {
	b.T.Helper()
	kit.Eventually(b.T, func() error {
		a, err := b.Try(b.Request("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: kit.Password}))
		if err != nil || a.Status != http.StatusOK {
			return fmt.Errorf("%s: %d %s %v", b.name, a.Status, a.Body, err)
		}
		return nil
	})
}

// streams reads the first event of the revocation feed, which a proxy must not hold back.
func (b *balancer) streams() {
	b.T.Helper()
	ctx, cancel := context.WithTimeout(b.T.Context(), kit.Patience)
	defer cancel()
	r := b.Request("GET", "/api/revocations", "", nil).WithContext(ctx)
	r.Header.Set("Accept", "text/event-stream")
	res, err := b.HTTP.Do(r)
	if err != nil {
		b.T.Fatal(err)
	}
	defer res.Body.Close()
	if line, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil || res.StatusCode != 200 {
		b.T.Errorf("%s: the stream begins with %d %q %v", b.name, res.StatusCode, line, err)
	}
}

// Each replica is stopped and started in turn while clients log in, renew, verify, log out, and
// read the key set and the feed. All of them are served.
func TestRoll(t *testing.T) {
	dir, log := t.TempDir(), &testenv.Log{}
	env := []string{
		"DATABASE_URL=" + testenv.Postgres(t), "AUTH_CLUSTER_SECRET=" + kit.ClusterSecret, "WATCHWORD_CLUSTER_ENABLED=true",
		"AUTH_STORAGE_KEY=" + base64.StdEncoding.EncodeToString(make([]byte, 32)), "WATCHWORD_TOKENS_KEYS=database",
		"WATCHWORD_SERVER_PUBLIC_URL=https://auth.example.com", "WATCHWORD_SERVER_TRUSTED_PROXIES=127.0.0.1",
		"WATCHWORD_SERVER_DRAIN_DELAY=2s", "ADMIN_GUI_USERNAME=admin", "ADMIN_GUI_PASSWORD=" + kit.Password,
		"WATCHWORD_REVOCATION_MAX_STALENESS=1m", // a machine that stands still is nothing that this is about
	}
	var addresses []string
	var replicas []*command.Process
	run := func(i int) {
		replicas[i] = command.Serve(program, dir, addresses[i], log, env...)
		replicas[i].Begin(t, replicas[i].Cmd.Start)
		replicas[i].IsReady(t, http.DefaultClient, "http://"+addresses[i], log)
	}
	for i := range 3 {
		addresses, replicas = append(addresses, testenv.Address(t)), append(replicas, nil)
		run(i)
		t.Cleanup(func() { replicas[i].Kill() })
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)

	var load sync.WaitGroup
	done := make(chan struct{})
	balancers := start(t, addresses)
	asked := make([]atomic.Int64, len(balancers))
	for i, b := range balancers {
		b.works()
		for _, client := range []func(call) error{b.member, b.resourceServer} {
			load.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					if err := client(func(method, path, token string, body any, status int) (kit.Answer, error) {
						asked[i].Add(1)
						a, err := b.Try(b.Request(method, path, token, body))
						if err == nil && a.Status != status {
							err = fmt.Errorf("%d %s %.200s", a.Status, a.Header.Get("Content-Type"), a.Body)
						}
						return a, err
					}); err != nil {
						t.Errorf("%s: %v", b.name, err)
						return
					}
				}
			})
		}
	}
	for i := range replicas {
		before := make([]int64, len(asked))
		for n := range asked {
			before[n] = asked[n].Load()
		}
		http.DefaultClient.CloseIdleConnections()
		if err := replicas[i].Stop(t, log); err != nil {
			t.Errorf("the replica ended with %v", err)
		}
		run(i)
		for n := range asked {
			if asked[n].Load() == before[n] && !t.Failed() {
				t.Errorf("nobody asked %s meanwhile", balancers[n].name)
			}
		}
	}
	close(done)
	load.Wait()
	for i, b := range balancers {
		t.Logf("summary: %s: three replicas replaced, %d requests, 0 failed: %t", b.name, asked[i].Load(), !t.Failed())
	}
	if t.Failed() {
		t.Log(log.Tail())
	}
}

// A replica believes a trusted proxy about the id of a request and the trace that it is of, so none
// passes on what a client says of them.
func TestClientsChooseNoIDs(t *testing.T) {
	var mu sync.Mutex
	var got http.Header // of the last request
	replica := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/api/verify" {
			got = r.Header.Clone()
		}
	}))
	defer replica.Close()
	address := replica.Listener.Addr().String()
	for _, b := range start(t, []string{address, address, address}) {
		r := b.Request("GET", "/api/verify", "", nil)
		r.Header["X-Request-Id"] = []string{"of-another-request", "and-more"}
		r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		r.Header.Set("Tracestate", "vendor=client")
		kit.Eventually(t, func() error {
			if a, err := b.Try(r); err != nil || a.Status != http.StatusOK {
				return fmt.Errorf("%s: %d %v", b.name, a.Status, err)
			}
			return nil
		})
		mu.Lock()
		if ids := got["X-Request-Id"]; len(ids) != 1 || len(ids[0]) < 32 {
			t.Errorf("%s: the request has the ids %q", b.name, ids)
		}
		for _, name := range []string{"Traceparent", "Tracestate"} {
			if values := got[name]; len(values) > 1 || len(values) == 1 && values[0] != "" {
				t.Errorf("%s: %s is %q", b.name, name, values)
			}
		}
		mu.Unlock()
	}
}

// A call asks through a proxy, and fails unless the answer has the status.
type call func(method, path, token string, body any, status int) (kit.Answer, error)

// member lives for one session.
func (b *balancer) member(do call) error {
	a, err := do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: kit.Password}, 200)
	for range 3 {
		if err != nil {
			return fmt.Errorf("login or renewal: %w", err)
		}
		var g httpapi.Grant
		if err := json.Unmarshal(a.Body, &g); err != nil {
			return err
		}
		if _, err := do("GET", "/api/verify", g.AccessToken, nil, 200); err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		a, err = do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}, 200)
	}
	return err
}

// resourceServer reads what every resource server reads.
func (b *balancer) resourceServer(do call) error {
	for _, path := range []string{"/api/pkeys", "/.well-known/jwks.json", "/api/revocations", "/api/revocations?wait=1"} {
		if _, err := do("GET", path, "", nil, 200); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// Without a database nobody logs in. The key set and the feed are served as before, and a
// proxy takes no replica away from those who ask for them.
func TestDatabaseIsAway(t *testing.T) {
	database := testenv.StartPostgres(t)
	var addresses []string
	var replicas []*replica.World
	for range 3 {
		w := replica.Join(t, database.URL, func(cfg *config.Config) {
			kit.StoredKeys(cfg)
			cfg.Revocation.MaxStaleness = config.Default().Revocation.MaxStaleness
		})
		replicas, addresses = append(replicas, w), append(addresses, strings.TrimPrefix(w.URL, "http://"))
	}
	balancers := start(t, addresses)
	claim := "log=" + strings.Repeat("語", 30)
	var claims []string
	for i := range 40 {
		claims = append(claims, fmt.Sprintf("%s%02d", claim, i))
	}
	replicas[0].User("large", claims...)
	for _, b := range balancers {
		b.works()
		// No answer is too large for the proxy: not the one for a user with many claims.
		a := b.Want(b.Do("GET", "/api/verify", b.Login("large").AccessToken, nil), 200, "")
		if got, err := url.PathUnescape(a.Header.Get("X-Auth-Claim-Log")); err != nil || strings.Count(got, "語") != 40*30 {
			t.Errorf("%s: %.100s %v", b.name, got, err)
		}
		b.streams()
	}

	token := replicas[0].Login("admin").AccessToken
	database.Stop()
	var wait sync.WaitGroup
	noticed := make(chan struct{})
	for _, b := range balancers {
		wait.Go(func() {
			for {
				for _, path := range []string{"/api/pkeys", "/.well-known/jwks.json", "/api/revocations"} {
					a, err := b.Try(b.Request("GET", path, "", nil))
					if err != nil || a.Status != 200 || path != "/api/revocations" && !strings.Contains(string(a.Body), `"kid"`) {
						t.Errorf("%s: %s without a database: %d %.200s %v", b.name, path, a.Status, a.Body, err)
						return
					}
				}
				select {
				case <-noticed:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
	}
	for _, w := range replicas {
		w.Await("not ready", func() bool { return w.Do("GET", "/readyz", "", nil).Status == 503 })
	}
	// What was revoked is known for as long as the bound says, which is ten times as long as the
	// proxies need to take the replicas away.
	for _, w := range replicas {
		w.Await("stale", func() bool { return w.Do("GET", "/api/verify", token, nil).Status == 503 })
	}
	close(noticed)
	wait.Wait()
	for _, b := range balancers {
		// A replica answers for itself.
		for what, a := range map[string]kit.Answer{
			"login":  b.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: kit.Password}),
			"verify": b.Do("GET", "/api/verify", token, nil),
		} {
			if a.Status != 503 || a.Code() == "" || a.Header.Get("Retry-After") == "" {
				t.Errorf("%s: %s without a database: %d %v %s", b.name, what, a.Status, a.Header, a.Body)
			}
		}
	}
	database.Start(t)
	for _, b := range balancers {
		b.works()
	}
}

// Traefik itself is not in the distribution. Its files say what the others do: logins go to
// replicas that are ready, and while there is none, everything goes to those that have keys.
func TestTraefikConfiguration(t *testing.T) {
	var static struct {
		Providers struct{ File struct{ Filename string } }
	}
	type service struct {
		Failover struct {
			Service, Fallback string
		}
		LoadBalancer struct {
			HealthCheck struct{ Path, Interval, Timeout string } `yaml:"healthCheck"`
			Servers     []struct{ URL string }
		} `yaml:"loadBalancer"`
	}
	var dynamic struct {
		HTTP struct {
			Routers map[string]struct {
				Rule, Service string
				Middlewares   []string
			}
			Middlewares map[string]struct {
				Retry struct {
					Attempts        int
					InitialInterval string `yaml:"initialInterval"`
				}
				Headers struct {
					CustomRequestHeaders map[string]string `yaml:"customRequestHeaders"`
				}
			}
			Services map[string]service
		}
	}
	for text, into := range map[string]any{traefikStatic: &static, traefikDynamic: &dynamic} {
		if err := yaml.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.HasSuffix(static.Providers.File.Filename, "/traefik-dynamic.yaml") {
		t.Errorf("the file is %s", static.Providers.File.Filename)
	}
	router := dynamic.HTTP.Routers["watchword"]
	if len(dynamic.HTTP.Routers) != 1 || router.Rule != "PathPrefix(`/`)" || len(router.Middlewares) != 2 {
		t.Fatalf("%+v", dynamic.HTTP.Routers)
	}
	if again := dynamic.HTTP.Middlewares[router.Middlewares[0]].Retry; again.Attempts < 3 {
		t.Errorf("%+v", again)
	}
	for _, name := range []string{"X-Request-Id", "Traceparent", "Tracestate"} {
		if value, removed := dynamic.HTTP.Middlewares[router.Middlewares[1]].Headers.CustomRequestHeaders[name]; !removed || value != "" {
			t.Errorf("%s of a client is passed on", name)
		}
	}
	failover := dynamic.HTTP.Services[router.Service].Failover
	for name, path := range map[string]string{failover.Service: "/readyz", failover.Fallback: "/api/pkeys"} {
		s := dynamic.HTTP.Services[name].LoadBalancer
		if interval, err := time.ParseDuration(s.HealthCheck.Interval); s.HealthCheck.Path != path || len(s.Servers) != 3 || err != nil || interval > time.Second {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// Envoy is not in the distribution either. Its file says what the others do, and leaves the streams of the feed
// without an end.
func TestEnvoyConfiguration(t *testing.T) {
	type manager struct {
		UseRemoteAddress bool `yaml:"use_remote_address"`
		RouteConfig      struct {
			VirtualHosts []struct {
				Routes []struct {
					Match struct{ Path, Prefix string }
					Route struct{ Cluster, Timeout string }
				}
			} `yaml:"virtual_hosts"`
		} `yaml:"route_config"`
	}
	type cluster struct {
		Name        string
		ClusterType struct {
			TypedConfig struct{ Clusters []string } `yaml:"typed_config"`
		} `yaml:"cluster_type"`
		CommonLBConfig struct {
			HealthyPanicThreshold *struct{ Value float64 } `yaml:"healthy_panic_threshold"`
		} `yaml:"common_lb_config"`
		HealthChecks []struct {
			Interval string
			HTTP     struct{ Path string } `yaml:"http_health_check"`
		} `yaml:"health_checks"`
		LoadAssignment struct {
			Endpoints []struct {
				LBEndpoints []any `yaml:"lb_endpoints"`
			}
		} `yaml:"load_assignment"`
	}
	var file struct {
		StaticResources struct {
			Listeners []struct {
				FilterChains []struct {
					Filters []struct {
						TypedConfig manager `yaml:"typed_config"`
					}
				} `yaml:"filter_chains"`
			}
			Clusters []cluster
		} `yaml:"static_resources"`
	}
	if err := yaml.Unmarshal([]byte(envoyYAML), &file); err != nil {
		t.Fatal(err)
	}
	public := file.StaticResources.Listeners[0].FilterChains[0].Filters[0].TypedConfig
	if !public.UseRemoteAddress {
		t.Error("a client can choose its address")
	}
	clusters := map[string]cluster{}
	for _, c := range file.StaticResources.Clusters {
		clusters[c.Name] = c
	}
	var feed, rest bool
	for _, r := range public.RouteConfig.VirtualHosts[0].Routes {
		feed = feed || r.Match.Path == "/api/revocations" && r.Route.Timeout == "0s"
		rest = rest || r.Match.Prefix == "/"
		order := clusters[r.Route.Cluster].ClusterType.TypedConfig.Clusters
		if len(order) != 2 {
			t.Fatalf("%+v leads to %q", r, order)
		}
		for i, path := range []string{"/readyz", "/api/pkeys"} {
			c := clusters[order[i]]
			if len(c.HealthChecks) != 1 || c.HealthChecks[0].HTTP.Path != path || c.HealthChecks[0].Interval != "0.5s" {
				t.Errorf("%s: %+v", order[i], c.HealthChecks)
			}
			// By default half of the replicas being away sends requests to those as well.
			if p := c.CommonLBConfig.HealthyPanicThreshold; p == nil || p.Value != 0 {
				t.Errorf("%s takes replicas that are not well", order[i])
			}
			if e := c.LoadAssignment.Endpoints; len(e) != 1 || len(e[0].LBEndpoints) != 3 {
				t.Errorf("%s: %+v", order[i], e)
			}
		}
	}
	if !feed || !rest {
		t.Errorf("feed: %t, everything: %t", feed, rest)
	}
}
