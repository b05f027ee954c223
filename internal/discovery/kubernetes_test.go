package discovery

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// A fakeAPI is the part of the Kubernetes API that serves EndpointSlices: list and
// watch, with the service account's token, over TLS.
type fakeAPI struct {
	*httptest.Server
	t     *testing.T
	token string

	mu      sync.Mutex
	version int
	slices  map[string]string // JSON by name
	events  []string          // JSON lines; the n-th has version n+1
	gone    bool              // the next watch is too old
	lists   int
	news    chan struct{} // closed and replaced by every event
}

func newAPI(t *testing.T) *fakeAPI {
	a := &fakeAPI{t: t, token: "secret-1", slices: map[string]string{}, news: make(chan struct{})}
	a.Server = httptest.NewTLSServer(a)
	t.Cleanup(a.Close)
	return a
}

// slice is the JSON of an EndpointSlice, as the API server writes it.
func slice(name string, version int, port string, addresses ...string) string {
	var endpoints []string
	for _, a := range addresses {
		endpoints = append(endpoints, fmt.Sprintf(`{"addresses":[%q],"conditions":{"ready":false,"serving":false,"terminating":false},"nodeName":"n1","targetRef":{"kind":"Pod","name":"auth-0"}}`, a))
	}
	return fmt.Sprintf(`{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":%q,"namespace":"auth","resourceVersion":"%d","labels":{"kubernetes.io/service-name":"watchword"}},
		"addressType":"IPv4","endpoints":[%s],"ports":%s}`, name, version, strings.Join(endpoints, ","), port)
}

// put makes or replaces a slice; without addresses it is deleted.
func (a *fakeAPI) put(name, port string, addresses ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	kind := "MODIFIED"
	if _, there := a.slices[name]; !there {
		kind = "ADDED"
	}
	object := slice(name, a.version, port, addresses...)
	a.slices[name] = object
	if len(addresses) == 0 {
		kind = "DELETED"
		delete(a.slices, name)
	}
	a.say(kind, object)
}

func (a *fakeAPI) say(kind, object string) {
	a.events = append(a.events, fmt.Sprintf(`{"type":%q,"object":%s}`, kind, object))
	close(a.news)
	a.news = make(chan struct{})
}

func (a *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	a.mu.Lock()
	token := a.token
	a.mu.Unlock()
	switch {
	case r.Header.Get("Authorization") != "Bearer "+token:
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"kind":"Status","status":"Failure","message":"Unauthorized","code":401}`)
	case r.URL.Path != "/apis/discovery.k8s.io/v1/namespaces/auth/endpointslices" || q.Get("labelSelector") != "kubernetes.io/service-name=watchword":
		a.t.Errorf("asked for %s", r.URL)
		http.NotFound(w, r)
	case q.Get("watch") == "":
		a.mu.Lock()
		defer a.mu.Unlock()
		a.lists++
		items := []json.RawMessage{}
		for _, s := range a.slices {
			items = append(items, json.RawMessage(s))
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"kind": "EndpointSliceList", "metadata": map[string]string{"resourceVersion": fmt.Sprint(a.version)}, "items": items})
	default:
		a.watch(w, r, q)
	}
}

func (a *fakeAPI) watch(w http.ResponseWriter, r *http.Request, q url.Values) {
	var from int
	if _, err := fmt.Sscan(q.Get("resourceVersion"), &from); err != nil || q.Get("timeoutSeconds") == "" || q.Get("allowWatchBookmarks") == "" {
		a.t.Errorf("watches with %v", q)
	}
	w.(http.Flusher).Flush()
	for {
		a.mu.Lock()
		gone, news := a.gone, a.news
		a.gone = false
		fresh := a.events[min(from, len(a.events)):]
		from = max(from, len(a.events))
		a.mu.Unlock()
		if gone {
			fmt.Fprint(w, `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","message":"too old resource version","reason":"Expired","code":410}}`)
			return
		}
		for _, e := range fresh {
			fmt.Fprintln(w, e)
		}
		w.(http.Flusher).Flush()
		select {
		case <-news:
		case <-r.Context().Done():
			return
		}
	}
}

// account makes the files of a service account, and returns the API as a pod reaches it.
func (a *fakeAPI) account(t *testing.T) *Kubernetes {
	t.Helper()
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})
	for name, content := range map[string]string{"ca.crt": string(ca), "namespace": "auth\n", "token": a.token + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	u := parse(t, a.URL)
	env := map[string]string{"KUBERNETES_SERVICE_HOST": u.Hostname(), "KUBERNETES_SERVICE_PORT": u.Port()}
	k, err := inCluster(func(name string) string { return env[name] }, dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

const namedPort = `[{"name":"http","protocol":"TCP","port":8080},{"name":"metrics","port":9090}]`

func TestEndpointSlices(t *testing.T) {
	a := newAPI(t)
	a.put("watchword-abc", namedPort, "10.1.0.1", "10.1.0.2")
	k, l := a.account(t), newListener()
	start(t, func(ctx context.Context) {
		l.RunKubernetes(ctx, k, parse(t, "http://watchword.auth.svc.cluster.local"))
	})
	const name = "watchword.auth.svc.cluster.local"
	l.becomes(t, Peer{"http://10.1.0.1:8080", name}, Peer{"http://10.1.0.2:8080", name})
	a.put("watchword-def", `[{"port":8081}]`, "10.1.0.3")
	l.becomes(t, Peer{"http://10.1.0.1:8080", name}, Peer{"http://10.1.0.2:8080", name}, Peer{"http://10.1.0.3:8081", name})
	a.put("watchword-abc", namedPort, "10.1.0.2")
	l.becomes(t, Peer{"http://10.1.0.2:8080", name}, Peer{"http://10.1.0.3:8081", name})
	a.put("watchword-abc", namedPort)
	l.becomes(t, Peer{"http://10.1.0.3:8081", name})

	// The token is renewed, and the watch is too old, so that the slices are listed again.
	a.mu.Lock()
	a.token = "secret-2"
	if err := os.WriteFile(k.Token, []byte(a.token), 0o600); err != nil {
		t.Error(err)
	}
	a.gone = true
	a.version++
	a.slices["watchword-ghi"] = slice("watchword-ghi", a.version, namedPort, "10.1.0.4")
	a.say("BOOKMARK", `{"metadata":{"resourceVersion":"99"}}`)
	a.mu.Unlock()
	l.becomes(t, Peer{"http://10.1.0.3:8081", name}, Peer{"http://10.1.0.4:8080", name})
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lists != 2 {
		t.Errorf("%d lists", a.lists)
	}
}

// While the API is away, or refuses, the list stays. A port in the URL is that of the pods.
func TestAPIAway(t *testing.T) {
	a := newAPI(t)
	a.put("watchword-abc", namedPort, "10.1.0.1")
	k, l := a.account(t), newListener()
	start(t, func(ctx context.Context) { l.RunKubernetes(ctx, k, parse(t, "https://watchword:8443")) })
	l.becomes(t, Peer{"https://10.1.0.1:8443", "watchword"})
	a.mu.Lock()
	a.token = "another"
	a.mu.Unlock()
	a.CloseClientConnections()
	if err := l.follow(t.Context(), k, parse(t, "https://watchword")); err == nil || !strings.Contains(err.Error(), "401: Unauthorized") {
		t.Errorf("got %v", err)
	}
	l.becomes(t, Peer{"https://10.1.0.1:8443", "watchword"})
}

// The API is trusted only with a certificate of the authority that the pod was given.
func TestForeignAPI(t *testing.T) {
	a, l := newAPI(t), newListener()
	k := a.account(t)
	k.Client.Transport.(*http.Transport).TLSClientConfig.RootCAs = x509.NewCertPool()
	if err := l.follow(t.Context(), k, parse(t, "https://watchword")); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
}

func TestNotInAPod(t *testing.T) {
	if _, err := inCluster(func(string) string { return "" }, t.TempDir()); err == nil || !strings.Contains(err.Error(), "inside a pod alone") {
		t.Errorf("got %v", err)
	}
	if _, err := inCluster(func(string) string { return "x" }, t.TempDir()); err == nil || !strings.Contains(err.Error(), "automountServiceAccountToken") {
		t.Errorf("got %v", err)
	}
}

// The API is shown no token that another user may have put in the place of the service
// account's.
func TestTokenThatOthersMayReplace(t *testing.T) {
	a := newAPI(t)
	k := a.account(t)
	if err := os.Chmod(filepath.Dir(k.Token), 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := k.get(t.Context(), "/", nil)
	if err == nil || !strings.Contains(err.Error(), "every user of this machine may write") {
		t.Errorf("the token was used: %v", err)
	}
}
