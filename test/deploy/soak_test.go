package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/command"
	"github.com/watchword-auth/watchword/test/kit"
)

// kubeVersion is that of the API server in the module test/deploy/apiserver.
const kubeVersion = "1.36.3"

// tool builds a program that a module of its own names, and returns its path. Every user may
// run it.
func tool(t *testing.T, module, program string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "watchword-tool-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, filepath.Base(program))
	build := exec.Command("go", "build", "-p", "2", "-trimpath", "-ldflags", "-s -w", "-o", path, program)
	build.Dir, build.Env = module, append(os.Environ(), "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// Helm itself finds no fault with the chart, and renders what the engine of the tests does.
func TestHelm(t *testing.T) {
	if !kit.Soak() {
		return // Helm takes minutes to compile
	}
	helm := tool(t, "helm", "helm.sh/helm/v4/cmd/helm")
	run := func(args ...string) (string, error) {
		cmd := exec.Command(helm, args...)
		cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
		var out, log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &log
		err := cmd.Run()
		return out.String() + log.String(), err
	}
	for _, r := range matrix {
		t.Run(r.name, func(t *testing.T) {
			text, err := yaml.Marshal(r.parsed(t))
			if err != nil {
				t.Fatal(err)
			}
			values := filepath.Join(t.TempDir(), "values.yaml")
			if err := os.WriteFile(values, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := run("lint", "--strict", chartDir, "--kube-version", kubeVersion, "-f", values); err != nil || !strings.Contains(out, "0 chart(s) failed") {
				t.Errorf("helm lint: %v\n%s", err, out)
			}
			out, err := run("template", release, chartDir, "--kube-version", kubeVersion, "--namespace", namespace, "-f", values)
			if err != nil {
				t.Fatalf("helm template: %v\n%s", err, out)
			}
			objects, err := readObjects(out)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", r.name+".yaml"), canonical(t, objects))
		})
	}
	out, err := run("template", release, chartDir, "--kube-version", kubeVersion, "--set", "server.public_url=https://a.example.com,secrets.existingSecret=a,server.replica_count=2")
	if err == nil || !strings.Contains(out, "replica_count") {
		t.Errorf("a misspelt value is accepted: %v\n%s", err, out)
	}
}

// resources are where the API has each kind of object.
var resources = map[string]string{
	"ConfigMap": "api/v1/namespaces/NS/configmaps", "Secret": "api/v1/namespaces/NS/secrets", "Service": "api/v1/namespaces/NS/services",
	"ServiceAccount": "api/v1/namespaces/NS/serviceaccounts", "Pod": "api/v1/namespaces/NS/pods", "Namespace": "api/v1/namespaces",
	"Deployment": "apis/apps/v1/namespaces/NS/deployments", "Job": "apis/batch/v1/namespaces/NS/jobs",
	"Role": "apis/rbac.authorization.k8s.io/v1/namespaces/NS/roles", "RoleBinding": "apis/rbac.authorization.k8s.io/v1/namespaces/NS/rolebindings",
	"PodDisruptionBudget":     "apis/policy/v1/namespaces/NS/poddisruptionbudgets",
	"HorizontalPodAutoscaler": "apis/autoscaling/v2/namespaces/NS/horizontalpodautoscalers",
	"NetworkPolicy":           "apis/networking.k8s.io/v1/namespaces/NS/networkpolicies", "Ingress": "apis/networking.k8s.io/v1/namespaces/NS/ingresses",
	"EndpointSlice": "apis/discovery.k8s.io/v1/namespaces/NS/endpointslices",
}

// An api is a real Kubernetes API.
type api struct {
	*testenv.Kubernetes
	t *testing.T
}

// call sends a request as somebody, and returns the status and the answer.
func (a *api) call(token, method, path, media string, body any) (int, object) {
	a.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		a.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(a.t.Context(), method, a.URL+"/"+path, bytes.NewReader(text))
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", media)
	answer, err := a.Client.Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer answer.Body.Close()
	read, err := io.ReadAll(answer.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	var o object
	if err := json.Unmarshal(read, &o); err != nil {
		a.t.Fatalf("%s\n%s", err, read)
	}
	return answer.StatusCode, o
}

// create makes an object as "kubectl create --validate=strict" does, which fails for a field
// that is unknown or stands twice. It returns what is wrong.
func (a *api) create(namespace string, o object, dryRun bool) error {
	a.t.Helper()
	path, known := resources[o.kind()]
	if !known {
		a.t.Fatalf("resources does not have %s", o.kind())
	}
	query := url.Values{"fieldValidation": {"Strict"}}
	if dryRun {
		query.Set("dryRun", "All")
	}
	status, answer := a.call(a.Token, http.MethodPost, strings.Replace(path, "NS", namespace, 1)+"?"+query.Encode(), "application/json", o)
	if status != http.StatusCreated {
		return fmt.Errorf("%d: %s", status, answer.text("message"))
	}
	return nil
}

// apply makes a whole installation. The API server refuses no object, and no pod.
func (a *api) apply(namespace string, objects []object) {
	a.t.Helper()
	inNamespace := slices.DeleteFunc(slices.Clone(objects), func(o object) bool {
		// The API of the Prometheus Operator is not there.
		return o.kind() == "Namespace" || o.kind() == "ServiceMonitor"
	})
	if spaces := find(objects, "Namespace"); len(spaces) == 0 {
		objects = append(objects, object{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{
			"name": namespace, "labels": map[string]any{"pod-security.kubernetes.io/enforce": "restricted"},
		}})
	}
	if err := a.create("", one(a.t, objects, "Namespace"), false); err != nil {
		a.t.Fatal(err)
	}
	// A pod needs its account, so accounts come first.
	inNamespace = slices.Concat(find(inNamespace, "ServiceAccount"), slices.DeleteFunc(inNamespace, func(o object) bool { return o.kind() == "ServiceAccount" }))
	if err := a.create(namespace, object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "default"}}, false); err != nil {
		a.t.Fatal(err)
	}
	for _, o := range inNamespace {
		if err := a.create(namespace, o, false); err != nil {
			a.t.Errorf("the %s %s is refused: %v", o.kind(), o.name(), err)
		}
		if template := asObject(o.at("spec.template")); template != nil {
			metadata := map[string]any{"name": o.name() + "-pod", "labels": template.at("metadata.labels")}
			pod := object{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.at("spec")}
			if err := a.create(namespace, pod, true); err != nil {
				a.t.Errorf("a pod of the %s %s is refused: %v", o.kind(), o.name(), err)
			}
		}
	}
}

// token returns a token of a ServiceAccount, such as the kubelet gives to a pod.
func (a *api) token(namespace, account string) string {
	a.t.Helper()
	status, answer := a.call(a.Token, http.MethodPost, "api/v1/namespaces/"+namespace+"/serviceaccounts/"+account+"/token", "application/json",
		object{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": map[string]any{}})
	if status != http.StatusCreated {
		a.t.Fatalf("%d: %v", status, answer)
	}
	return answer.text("status.token")
}

// A real API server accepts everything that the chart and the manifests make, with strict
// validation and under the pod security level "restricted", and lets the replicas follow the
// EndpointSlices of their namespace, and do nothing else.
func TestKubernetes(t *testing.T) {
	if !kit.Soak() {
		return // the API server takes five minutes to compile
	}
	a := &api{testenv.StartKubernetes(t, tool(t, "apiserver", "k8s.io/kubernetes/cmd/kube-apiserver")), t}
	c := readChart(t)
	for _, r := range matrix {
		t.Run(r.name, func(t *testing.T) {
			a := &api{a.Kubernetes, t}
			c.namespace = r.name
			objects, _, err := c.render(r.parsed(t))
			if err != nil {
				t.Fatal(err)
			}
			a.apply(r.name, objects)
			account := one(t, objects, "ServiceAccount").name()
			a.hasRights(r.name, account, len(find(objects, "Role")) > 0)
		})
	}
	t.Run("plain", func(t *testing.T) {
		a := &api{a.Kubernetes, t}
		example, err := readObjects(readText(t, "../../deploy/k8s/secret.example.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		a.apply("watchword", append(plainManifests(t), example...))
		a.hasRights("watchword", "watchword", true)
		a.isDiscovered("watchword", "watchword", "watchword-peers")
	})
	t.Run("replicas", func(t *testing.T) { (&api{a.Kubernetes, t}).runsReplicas("watchword") })
	t.Run("refused", func(t *testing.T) { // the checks can fail
		a := &api{a.Kubernetes, t}
		broken := one(t, plainManifests(t), "PodDisruptionBudget")
		asObject(broken.at("spec"))["maxUnavailible"] = 1.0
		if err := a.create("watchword", broken, true); err == nil || !strings.Contains(err.Error(), "unknown field") {
			t.Errorf("an unknown field is accepted: %v", err)
		}
		deployment := one(t, plainManifests(t), "Deployment")
		spec := asObject(deployment.at("spec.template.spec"))
		delete(asObject(spec["securityContext"]), "seccompProfile")
		pod := object{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "loose"}, "spec": map[string]any(spec)}
		if err := a.create("watchword", pod, true); err == nil || !strings.Contains(err.Error(), "PodSecurity") {
			t.Errorf("a pod without seccomp profile is accepted: %v", err)
		}
	})
}

// hasRights fails the test unless a ServiceAccount may list and watch EndpointSlices in its
// namespace, or not even that, and nothing else that not everybody may.
func (a *api) hasRights(namespace, account string, discovers bool) {
	a.t.Helper()
	status, answer := a.call(a.token(namespace, account), http.MethodPost, "apis/authorization.k8s.io/v1/selfsubjectrulesreviews", "application/json",
		object{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": map[string]any{"namespace": namespace}})
	if status != http.StatusCreated || answer.at("status.incomplete") != false {
		a.t.Fatalf("%d: %v", status, answer)
	}
	var rights []string
	for _, rule := range answer.at("status.resourceRules").([]any) {
		r := object(rule.(map[string]any))
		text, err := json.Marshal([]any{r.at("apiGroups"), r.at("resources"), r.at("verbs")})
		if err != nil {
			a.t.Fatal(err)
		}
		if slices.ContainsFunc(r.at("resources").([]any), func(resource any) bool { return !strings.HasPrefix(resource.(string), "selfsubject") }) {
			rights = append(rights, string(text))
		}
	}
	var want []string
	if discovers {
		want = []string{`[["discovery.k8s.io"],["endpointslices"],["list","watch"]]`}
	}
	if !slices.Equal(rights, want) {
		a.t.Errorf("the ServiceAccount %s of %s has the rights %q, not %q", account, namespace, rights, want)
	}
	user := "system:serviceaccount:" + namespace + ":" + account
	for _, question := range []struct {
		verb, group, resource, namespace string
		allowed                          bool
	}{
		{"list", "discovery.k8s.io", "endpointslices", namespace, discovers},
		{"watch", "discovery.k8s.io", "endpointslices", namespace, discovers},
		{"get", "discovery.k8s.io", "endpointslices", namespace, false},
		{"create", "discovery.k8s.io", "endpointslices", namespace, false},
		{"delete", "discovery.k8s.io", "endpointslices", namespace, false},
		{"list", "discovery.k8s.io", "endpointslices", "kube-system", false},
		{"list", "discovery.k8s.io", "endpointslices", "", false},
		{"get", "", "secrets", namespace, false},
		{"list", "", "secrets", namespace, false},
		{"list", "", "pods", namespace, false},
		{"create", "", "pods", namespace, false},
		{"get", "", "configmaps", namespace, false},
		{"list", "", "nodes", "", false},
		{"create", "", "serviceaccounts/token", namespace, false},
	} {
		resource, sub, _ := strings.Cut(question.resource, "/")
		status, answer := a.call(a.Token, http.MethodPost, "apis/authorization.k8s.io/v1/subjectaccessreviews", "application/json",
			object{"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": map[string]any{
				"user": user, "groups": []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
				"resourceAttributes": map[string]any{
					"verb": question.verb, "group": question.group, "resource": resource, "subresource": sub, "namespace": question.namespace,
				},
			}})
		if status != http.StatusCreated || answer.at("status.allowed") != question.allowed {
			a.t.Errorf("%s: %+v: %d, %v", user, question, status, answer.at("status"))
		}
	}
}

// isDiscovered has discovery itself follow the EndpointSlices of a service with the rights of
// a ServiceAccount.
func (a *api) isDiscovered(namespace, account, service string) {
	a.t.Helper()
	file := filepath.Join(a.t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(a.token(namespace, account)), 0o600); err != nil {
		a.t.Fatal(err)
	}
	slice := func(name, address string) object {
		return object{
			"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
			"metadata":  map[string]any{"name": name, "labels": map[string]any{"kubernetes.io/service-name": service}},
			"endpoints": []any{map[string]any{"addresses": []any{address}, "conditions": map[string]any{"ready": false}}},
			"ports":     []any{map[string]any{"name": "api", "port": 8080}},
		}
	}
	if err := a.create(namespace, slice("one", "10.1.2.3"), false); err != nil {
		a.t.Fatal(err)
	}
	at, err := url.Parse("http://" + service + "." + namespace + ".svc:8080")
	if err != nil {
		a.t.Fatal(err)
	}
	log := &testenv.Log{}
	list := discovery.NewList(slog.New(slog.NewTextHandler(log, nil)), func() {})
	ctx, cancel := context.WithCancel(a.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		list.RunKubernetes(ctx, &discovery.Kubernetes{API: a.URL, Namespace: namespace, Token: file, Client: a.Client}, at)
	}()
	defer func() { cancel(); <-ended }()
	has := func(addresses ...string) func() bool {
		return func() bool {
			peers := list.Peers()
			return len(peers) == len(addresses) && !slices.ContainsFunc(peers, func(p discovery.Peer) bool { return !slices.Contains(addresses, p.URL) })
		}
	}
	kit.Await(a.t, "one replica is found", has("http://10.1.2.3:8080"), log.Tail)
	if err := a.create(namespace, slice("two", "10.1.2.4"), false); err != nil {
		a.t.Fatal(err)
	}
	kit.Await(a.t, "a second replica is found", has("http://10.1.2.3:8080", "http://10.1.2.4:8080"), log.Tail)
	if text := log.String(); strings.Contains(text, "level=WARN") {
		a.t.Errorf("discovery is refused something: %s", text)
	}
}

// runsReplicas starts two replicas as processes with what the plain manifests give to the pods,
// and with the token of their ServiceAccount where a pod has it. They find each other by the API.
func (a *api) runsReplicas(namespace string) {
	t := a.t
	t.Helper()
	dir, objects := t.TempDir(), plainManifests(t)
	database, redis := testenv.Postgres(t), testenv.Redis(t)
	binary := command.Build(filepath.Join(dir, "watchword"), "-tags=pkcs11", "-ldflags=-s -w")
	account := filepath.Join(dir, "account")
	if err := os.Mkdir(account, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"token": a.token(namespace, "watchword"), "namespace": namespace, "ca.crt": string(a.CA)} {
		if err := os.WriteFile(filepath.Join(account, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host, port, err := net.SplitHostPort(a.Addr)
	if err != nil {
		t.Fatal(err)
	}
	// The service's pods have its port on addresses of their own. The API refuses those of this
	// machine, so it is told names, which the processes know by a file of hosts.
	addresses, names := []string{"127.0.77.1", "127.0.77.2"}, []any{"one.pods.test", "two.pods.test"}
	hosts := filepath.Join(dir, "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.77.1 one.pods.test\n127.0.77.2 two.pods.test\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	slice := object{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "FQDN",
		"metadata":  map[string]any{"name": "replicas", "labels": map[string]any{"kubernetes.io/service-name": "watchword-peers"}},
		"endpoints": []any{map[string]any{"addresses": names[:1]}, map[string]any{"addresses": names[1:]}},
		"ports":     []any{map[string]any{"name": "api", "port": 8080}},
	}
	if err := a.create(namespace, slice, false); err != nil {
		t.Fatal(err)
	}
	var clients []*kit.Client
	for i, address := range addresses {
		k := newKubelet(t, objects)
		k.fields["metadata.name"], k.fields["status.podIP"] = fmt.Sprintf("watchword-6d4cf56db6-%d", i), address
		k.give("watchword", "AUTH_CLUSTER_SECRET", "AUTH_STORAGE_KEY", "ADMIN_GUI_USERNAME", "ADMIN_GUI_PASSWORD")
		k.secrets["watchword"]["DATABASE_URL"], k.secrets["watchword"]["REDIS_URL"] = database, redis
		environ, _ := k.prepare(podOf(one(t, objects, "Deployment")))
		log := &testenv.Log{}
		p := command.Serve(binary, dir, address+":8080", log, append(environ,
			"WATCHWORD_SERVER_METRICS_ADDRESS="+address+":9090", "KUBERNETES_SERVICE_HOST="+host, "KUBERNETES_SERVICE_PORT="+port)...)
		// In a mount namespace of its own, the process has the files of a pod.
		const inPod = `set -e; to=/var/run/secrets/kubernetes.io/serviceaccount
mount --bind "$1" /etc/hosts; shift
mount -t tmpfs tmpfs /var/run; mkdir -p $to; cp "$1"/* $to; shift; exec "$@"`
		flag := "--mount"
		if os.Getuid() != 0 {
			flag = "--map-root-user"
		}
		p.Cmd.Args = []string{"unshare", "--mount", flag, "sh", "-c", inPod, "sh", hosts, account, binary, "serve"}
		if p.Cmd.Path, err = exec.LookPath("unshare"); err != nil {
			t.Fatal(err)
		}
		p.Begin(t, p.Cmd.Start)
		t.Cleanup(func() {
			if err := p.Stop(t, log); err != nil {
				t.Errorf("%v\n%s", err, log.Tail())
			}
		})
		client := &kit.Client{T: t, URL: "http://" + address + ":8080", Log: log}
		p.IsReady(t, http.DefaultClient, client.URL, log)
		clients = append(clients, client)
	}
	for i, address := range addresses {
		clients[1-i].Accepts(clients[i].Login("admin").AccessToken)
		metrics := &kit.Client{T: t, URL: "http://" + address + ":9090", Log: clients[i].Log}
		kit.Await(t, "the replicas ask each other", func() bool {
			asked, _ := kit.Sum(t, string(metrics.Do("GET", "/metrics", "", nil).Body), `watchword_cluster_peer_fetches_total{result="ok"}`)
			return asked > 0
		}, metrics.Log.Tail)
		metrics.Log = nil
		if a := clients[i].Do("GET", "/metrics", "", nil); a.Status != http.StatusNotFound {
			t.Errorf("clients are answered %d at /metrics", a.Status)
		}
	}
}
