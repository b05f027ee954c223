package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/watchword-auth/watchword/internal/config"
)

// A row is a set of values with which the chart is installed.
type row struct {
	name   string
	values string // YAML
}

const base = `
server: {public_url: https://auth.example.com}
secrets: {existingSecret: watchword}
`

// matrix has each kind of installation. Each row has a golden file.
var matrix = []row{
	{"least", base},
	{"made-secrets", `
server: {public_url: https://auth.example.com}
redis: {enabled: true}
secrets:
  DATABASE_URL: {value: "postgres://watchword:secret@postgres:5432/watchword?sslmode=verify-full"}
  REDIS_URL: {value: "rediss://:secret@redis:6379/0"}
  AUTH_CLUSTER_SECRET: {value: 0123456789abcdef0123456789abcdef}
  AUTH_STORAGE_KEY: {value: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef}
  ADMIN_GUI_USERNAME: {value: admin}
  ADMIN_GUI_PASSWORD: {value: correct horse battery staple}
`},
	{"secrets-as-files", base + `
redis: {enabled: true}
secrets:
  as: files
  existingSecret: watchword
  existingSecretKeys: [ADMIN_GUI_USERNAME, ADMIN_GUI_PASSWORD, AUTH_STORAGE_KEY_PREVIOUS]
  DATABASE_URL: {secretName: postgres-app, secretKey: uri}
`},
	{"alone", base + `
cluster: {enabled: false}
server: {public_url: https://auth.example.com, replicaCount: 1}
`},
	{"dns", base + `
cluster: {discovery: dns, refresh_sec: 10}
`},
	{"database-and-keys-in-memory", base + `
cluster: {discovery: database, algorithms: [ES256, EdDSA]}
config: {tokens: {keys: memory}}
`},
	{"static", base + `
cluster: {discovery: static, static_peers: ["https://a.example.com", "https://b.example.com"], advertise_url: "https://$(POD_NAME).example.com"}
`},
	{"mutual-tls", base + `
server: {public_url: https://auth.example.com, tls: {secretName: watchword-tls, mutual: true}}
`},
	{"shared-secret", base + `
config: {tokens: {keys: secret}}
secrets: {existingSecret: watchword, existingSecretKeys: [AUTH_JWT_SECRET_PREVIOUS]}
`},
	{"remote-signer", base + `
config:
  tokens: {keys: remote, remote: {url: https://vault:8200, ca_file: /etc/signer/ca.crt}}
networkPolicy: {extraEgress: [{ports: [{port: 8200, protocol: TCP}]}]}
extraVolumes: [{name: signer, configMap: {name: signer-ca}}]
extraVolumeMounts: [{name: signer, mountPath: /etc/signer, readOnly: true}]
`},
	{"hsm", base + `
image: {repository: registry.example.com/watchword-hsm, digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
config:
  tokens: {keys: pkcs11, pkcs11: {library: /usr/lib/softhsm/libsofthsm2.so, token: watchword}}
`},
	{"everything", `
nameOverride: tokens
image: {repository: registry.example.com/watchword, tag: v1.2.3, pullPolicy: Always, pullSecrets: [{name: registry}]}
server:
  public_url: https://auth.example.com:8443/
  trusted_proxies: [10.0.0.0/8, "fd00::/8"]
  forwarded_header: X-Forwarded-For
  cors_origins: ["https://app.example.com"]
  drain_delay: 10s
  tls: {secretName: watchword-tls}
cluster: {ca_file: /etc/watchword/tls/ca.crt}
database: {max_connections: 20, acquire_timeout: 3s}
redis: {enabled: true, ca_file: /etc/redis/ca.crt}
config:
  tokens: {keys: database, token_duration: 10m, audience: ["https://auth.example.com", shop]}
  limits: {login: {per_address: 20/1m}, lockout: {after: 4}}
  mfa: {required: "claims:[superuser]"}
  log: {level: warn, format: json}
  telemetry: {canary: 30s}
secrets:
  existingSecret: watchword
  AUTH_CLUSTER_SECRET: {secretName: cluster, secretKey: secret}
  AUTH_JWT_SECRET: {secretName: jwt}
service: {type: LoadBalancer, port: 443, annotations: {example.com/internal: "true"}, podIPFamily: IPv6}
ingress: {enabled: true, className: haproxy, tlsSecretName: auth-tls, annotations: {haproxy-ingress.github.io/timeout-server: 40s}}
migration: {secretName: owner, secretKey: url}
podDisruptionBudget: {maxUnavailable: "25%"}
autoscaling: {enabled: true, minReplicas: 4, maxReplicas: 8, targetCPUUtilizationPercentage: 60}
networkPolicy:
  clients: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress}}}]
  prometheus: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]
  databasePorts: [6432]
serviceMonitor: {enabled: true, interval: 15s, labels: {release: prometheus}}
serviceAccount: {annotations: {example.com/role: tokens}}
resources: {requests: {cpu: "2", memory: 512Mi}, limits: {cpu: "4", memory: 1Gi}}
goMemoryLimit: 900MiB
terminationGracePeriodSeconds: 90
podAnnotations: {example.com/team: login}
podLabels: {team: login}
nodeSelector: {kubernetes.io/arch: amd64}
tolerations: [{key: dedicated, operator: Equal, value: login, effect: NoSchedule}]
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: pool, operator: In, values: [login]}]}]}}}
topologySpreadConstraints: [{maxSkew: 2, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {team: login}}}]
priorityClassName: system-cluster-critical
extraEnv: [{name: GODEBUG, value: http2client=1}]
extraVolumes: [{name: redis, configMap: {name: redis-ca}}]
extraVolumeMounts: [{name: redis, mountPath: /etc/redis, readOnly: true}]
`},
	{"nothing-more", base + `
fullnameOverride: gate
networkPolicy: {enabled: false}
podDisruptionBudget: {enabled: false}
migration: {enabled: false}
goMemoryLimit: ""
resources: {limits: null, requests: null}
`},
}

// parsed returns a row's values. What follows base may say more about a section of it.
func (r row) parsed(t testing.TB) map[string]any {
	t.Helper()
	more, found := strings.CutPrefix(r.values, base)
	values, err := parseYAML(more)
	if err != nil {
		t.Fatalf("%s: %v", r.name, err)
	}
	if !found {
		return values
	}
	least, err := parseYAML(base)
	if err != nil {
		t.Fatal(err)
	}
	return merge(least, values)
}

// The objects of each row are those of its golden file.
func TestGolden(t *testing.T) {
	c := readChart(t)
	for _, r := range matrix {
		t.Run(r.name, func(t *testing.T) {
			objects, notes, err := c.render(r.parsed(t))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", r.name+".yaml"), canonical(t, objects))
			golden(t, filepath.Join("testdata", r.name+".txt"), strings.TrimSpace(notes)+"\n")
		})
	}
}

// canonical writes objects so that two renderings of the same are equal byte for byte: in
// one order, with the keys in order, and with the configuration written in the same way.
func canonical(t testing.TB, objects []object) string {
	t.Helper()
	slices.SortFunc(objects, func(a, b object) int {
		return strings.Compare(a.kind()+"/"+a.name(), b.kind()+"/"+b.name())
	})
	var text strings.Builder
	for _, o := range objects {
		if o.kind() == "ConfigMap" {
			data := asObject(o.at("data"))
			settings, err := parseYAML(data["watchword.yaml"].(string))
			if err != nil {
				t.Fatal(err)
			}
			plain, err := yaml.Marshal(settings)
			if err != nil {
				t.Fatal(err)
			}
			data["watchword.yaml"] = string(plain)
		}
		plain, err := yaml.Marshal(map[string]any(o))
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString("---\n")
		text.Write(plain)
	}
	return text.String()
}

// What is rendered fits together: names that are referred to exist, and pods have no more
// rights than they need.
func TestObjectsFitTogether(t *testing.T) {
	c := readChart(t)
	for _, r := range matrix {
		t.Run(r.name, func(t *testing.T) {
			objects, _, err := c.render(r.parsed(t))
			if err != nil {
				t.Fatal(err)
			}
			fitTogether(t, objects)
		})
	}
	t.Run("plain", func(t *testing.T) { fitTogether(t, plainManifests(t)) })
}

func fitTogether(t *testing.T, objects []object) {
	deployment := one(t, objects, "Deployment")
	labels := asObject(deployment.at("spec.template.metadata.labels"))
	if !selects(asObject(deployment.at("spec.selector.matchLabels")), labels) {
		t.Error("the Deployment does not select its own pods")
	}
	container := object(asObject(deployment.at("spec.template.spec.containers.0")))
	ports := map[string]bool{}
	for _, p := range container.at("ports").([]any) {
		ports[p.(map[string]any)["name"].(string)] = true
	}
	for _, s := range find(objects, "Service") {
		if !selects(asObject(s.at("spec.selector")), labels) {
			t.Errorf("the Service %s does not select the replicas", s.name())
		}
		for _, p := range s.at("spec.ports").([]any) {
			if target := p.(map[string]any)["targetPort"].(string); !ports[target] {
				t.Errorf("the Service %s leads to the port %s, which no container has", s.name(), target)
			}
		}
	}
	for _, probe := range []string{"startupProbe", "livenessProbe", "readinessProbe"} {
		want := map[string]string{"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}[probe]
		if path := container.text(probe + ".httpGet.path"); path != want || !ports[container.text(probe+".httpGet.port")] {
			t.Errorf("%s asks for %q", probe, path)
		}
	}
	for _, kind := range []string{"PodDisruptionBudget", "NetworkPolicy"} {
		for _, o := range find(objects, kind) {
			selector := asObject(o.at("spec.selector.matchLabels"))
			if kind == "NetworkPolicy" {
				selector = asObject(o.at("spec.podSelector.matchLabels"))
			}
			if !selects(selector, labels) {
				t.Errorf("the %s does not select the replicas", kind)
			}
		}
	}
	for _, o := range find(objects, "HorizontalPodAutoscaler") {
		if o.text("spec.scaleTargetRef.name") != deployment.name() || deployment.at("spec.replicas") != nil {
			t.Error("the HorizontalPodAutoscaler and the Deployment do not go together")
		}
	}
	for _, o := range find(objects, "Ingress") {
		backend := object(asObject(o.at("spec.rules.0.http.paths.0.backend.service")))
		service := one(t, objects, "Service", backend.text("name"))
		if service.text("spec.ports.0.name") != backend.text("port.name") {
			t.Error("the Ingress leads to no port of the Service")
		}
	}

	// Nobody can ask the API but the replicas, and they for EndpointSlices alone.
	roles := find(objects, "Role")
	token, _ := deployment.at("spec.template.spec.automountServiceAccountToken").(bool)
	if token != (len(roles) == 1) || len(roles) != len(find(objects, "RoleBinding")) {
		t.Errorf("the replicas have a token: %v; there are %d Roles", token, len(roles))
	}
	for _, role := range roles {
		rules, _ := json.Marshal(role.at("rules"))
		if string(rules) != `[{"apiGroups":["discovery.k8s.io"],"resources":["endpointslices"],"verbs":["list","watch"]}]` {
			t.Errorf("the Role allows %s", rules)
		}
		binding := one(t, objects, "RoleBinding")
		if binding.text("roleRef.name") != role.name() || binding.text("subjects.0.name") != deployment.text("spec.template.spec.serviceAccountName") {
			t.Error("the RoleBinding is not for the replicas' ServiceAccount")
		}
	}
	if account := one(t, objects, "ServiceAccount"); account.at("automountServiceAccountToken") != false {
		t.Error("pods with the ServiceAccount have a token by default")
	}
	for _, o := range objects {
		pod := podOf(o)
		if pod == nil {
			continue
		}
		if o.kind() != "Deployment" && pod.at("automountServiceAccountToken") != false {
			t.Errorf("the %s %s has a token", o.kind(), o.name())
		}
		container := object(asObject(pod.at("containers.0")))
		for path, want := range map[string]any{
			"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities.drop.0": "ALL",
		} {
			if got := container.at("securityContext." + path); got != want {
				t.Errorf("the %s %s: %s is %v", o.kind(), o.name(), path, got)
			}
		}
		if pod.at("securityContext.runAsNonRoot") != true || pod.at("securityContext.seccompProfile.type") != "RuntimeDefault" || pod.at("enableServiceLinks") != false {
			t.Errorf("the pods of the %s %s may do more than they need", o.kind(), o.name())
		}
		if args := container.at("args").([]any); !isCommand(t, args[0].(string)) {
			t.Errorf("the %s %s runs watchword %s, which there is not", o.kind(), o.name(), args[0])
		}
	}
}

// selects reports whether an object with the labels is selected.
func selects(selector, labels object) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return len(selector) > 0
}

// isCommand reports whether there is such a command.
func isCommand(t testing.TB, name string) bool {
	t.Helper()
	files, err := filepath.Glob("../../cmd/watchword/*.go")
	if err != nil {
		t.Fatal(err)
	}
	use := regexp.MustCompile(`Use:\s+"` + regexp.QuoteMeta(name) + `[ "]`)
	return slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && use.Match(text)
	})
}

// A kubelet gives a container its environment and its files.
type kubelet struct {
	t       testing.TB
	objects []object
	fields  map[string]string            // what fieldRef refers to
	secrets map[string]map[string]string // by name: those that the objects do not have
	dir     string                       // where the files are
}

func newKubelet(t testing.TB, objects []object) *kubelet {
	return &kubelet{t: t, objects: objects, dir: t.TempDir(), fields: map[string]string{"metadata.name": "auth-watchword-6d4cf56db6-x7k2p", "status.podIP": "10.1.2.3"}}
}

// give has a Secret be there with the values that are known of some keys, and no others.
func (k *kubelet) give(name string, keys ...string) {
	secret := map[string]string{}
	for _, key := range keys {
		secret[key] = known(key)
	}
	k.secrets = map[string]map[string]string{name: secret}
}

// known are values of secrets, by their variables. An existing Secret has them.
func known(key string) string {
	return map[string]string{
		"DATABASE_URL": "postgres://watchword:secret@db/watchword", "uri": "postgres://watchword:secret@db/watchword", "url": "postgres://owner:secret@db/watchword",
		"REDIS_URL": "rediss://:secret@redis:6379/0", "AUTH_CLUSTER_SECRET": strings.Repeat("s", 32), "secret": strings.Repeat("s", 32),
		"AUTH_STORAGE_KEY": strings.Repeat("00", 32), "AUTH_STORAGE_KEY_PREVIOUS": strings.Repeat("11", 32),
		"AUTH_JWT_SECRET": strings.Repeat("0123456789abcdef", 4), "AUTH_JWT_SECRET_PREVIOUS": strings.Repeat("fedcba9876543210", 4),
		"PKCS11_PIN": "4711", "AUTH_SIGNER_TOKEN": "a token", "ADMIN_GUI_USERNAME": "admin", "ADMIN_GUI_PASSWORD": "correct horse battery staple",
	}[key]
}

// secret returns a key of a Secret. One that the objects have has nothing else.
func (k *kubelet) secret(name, key string) (string, bool) {
	for _, s := range find(k.objects, "Secret") {
		if s.name() == name {
			value, there := asObject(s.at("stringData"))[key].(string)
			return value, there
		}
	}
	if secret, there := k.secrets[name]; there {
		value, there := secret[key]
		return value, there
	}
	value := known(key)
	return value, value != ""
}

// environ returns the variables of a container, with what stands before "$" replaced as
// Kubernetes does.
func (k *kubelet) environ(pod object) []string {
	k.t.Helper()
	var environ []string
	set := map[string]string{}
	for _, entry := range asObject(pod.at("containers.0"))["env"].([]any) {
		e := object(entry.(map[string]any))
		name, value := e.text("name"), e.text("value")
		if field := e.text("valueFrom.fieldRef.fieldPath"); field != "" {
			value = k.fields[field]
		}
		if secret := e.text("valueFrom.secretKeyRef.name"); secret != "" {
			var there bool
			if value, there = k.secret(secret, e.text("valueFrom.secretKeyRef.key")); !there {
				if e.at("valueFrom.secretKeyRef.optional") != true {
					k.t.Fatalf("there is no Secret %s with %s", secret, e.text("valueFrom.secretKeyRef.key"))
				}
				continue
			}
		}
		value = regexp.MustCompile(`\$\(([A-Z0-9_]+)\)`).ReplaceAllStringFunc(value, func(reference string) string {
			if known, there := set[reference[2:len(reference)-1]]; there {
				return known
			}
			return reference
		})
		set[name] = value
		environ = append(environ, name+"="+value)
	}
	return environ
}

// mount writes the files of a pod's volumes that the objects and Secrets say, and returns
// their paths in the container with the paths here.
func (k *kubelet) mount(pod object) map[string]string {
	k.t.Helper()
	files := map[string]string{}
	mounts, _ := asObject(pod.at("containers.0"))["volumeMounts"].([]any)
	volumes, _ := pod.at("volumes").([]any)
	for _, m := range mounts {
		mount := object(m.(map[string]any))
		i := slices.IndexFunc(volumes, func(v any) bool { return v.(map[string]any)["name"] == mount["name"] })
		if i < 0 {
			k.t.Fatalf("there is no volume %s", mount.text("name"))
		}
		volume := object(volumes[i].(map[string]any))
		write := func(name, text string) {
			file := filepath.Join(k.dir, volume.text("name")+"-"+name)
			if err := os.WriteFile(file, []byte(text), 0o440); err != nil {
				k.t.Fatal(err)
			}
			files[mount.text("mountPath")+"/"+name] = file
		}
		for _, c := range find(k.objects, "ConfigMap") {
			if c.name() == volume.text("configMap.name") {
				for name, text := range asObject(c.at("data")) {
					write(name, text.(string))
				}
			}
		}
		sources, _ := volume.at("projected.sources").([]any)
		for _, s := range sources {
			source := object(s.(map[string]any))
			for _, item := range source.at("secret.items").([]any) {
				i := object(item.(map[string]any))
				value, there := k.secret(source.text("secret.name"), i.text("key"))
				if !there {
					k.t.Fatalf("there is no Secret %s with %s", source.text("secret.name"), i.text("key"))
				}
				write(i.text("path"), value)
			}
		}
	}
	return files
}

// load reads the configuration as the container does.
func (k *kubelet) load(pod object) (*config.Config, error) {
	k.t.Helper()
	environ, file := k.prepare(pod)
	return config.Load(file, environ)
}

// prepare returns a container's environment, with the paths that files have here, and the path of
// the configuration file.
func (k *kubelet) prepare(pod object) (environ []string, file string) {
	k.t.Helper()
	files := k.mount(pod)
	environ = k.environ(pod)
	for i, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if name != "WATCHWORD_CONFIG" && !strings.HasSuffix(name, "_FILE") {
			continue
		}
		if files[value] == "" {
			k.t.Errorf("%s names %s, which no volume has", name, value)
		}
		environ[i] = name + "=" + files[value]
		if name == "WATCHWORD_CONFIG" {
			file = files[value]
		}
	}
	return environ, file
}

// isRead reports whether somebody reads a variable.
func isRead(name string) bool {
	if slices.Contains([]string{"POD_NAME", "POD_IP", "GOMEMLIMIT", "GODEBUG", "WATCHWORD_CONFIG"}, name) {
		return true
	}
	return slices.ContainsFunc(config.Settings(), func(s config.Setting) bool {
		return name == s.Env || s.Alias != "" && (name == s.Alias || name == s.Alias+"_FILE" || name == s.Env+"_FILE")
	})
}

// Each container of each row starts with a configuration that can be used, every variable
// that it is given is read by somebody, and the settings are those that were asked for.
func TestConfigurations(t *testing.T) {
	c := readChart(t)
	for _, r := range matrix {
		t.Run(r.name, func(t *testing.T) {
			objects, _, err := c.render(r.parsed(t))
			if err != nil {
				t.Fatal(err)
			}
			cfg := configurations(t, objects, func(k *kubelet) {
				if family, _ := asObject(r.parsed(t)["service"])["podIPFamily"].(string); family == "IPv6" {
					k.fields["status.podIP"] = "fd00::1:2"
				}
			})
			if warnings := cfg.Warnings(); len(warnings) > 0 {
				t.Logf("%q", warnings)
			}
			asked, err := parseYAML(asObject(one(t, objects, "ConfigMap").at("data"))["watchword.yaml"].(string))
			if err != nil {
				t.Fatal(err)
			}
			values := r.parsed(t)
			for _, section := range blocks {
				for key, value := range asObject(values[section]) {
					if section+"."+key == "server.tls" {
						continue // of the chart
					}
					if written, there := asObject(asked[section])[key]; there && fmt.Sprint(written) != fmt.Sprint(value) {
						t.Errorf("%s.%s is %v and not %v", section, key, written, value)
					}
				}
			}
			if sets := asObject(values["cluster"])["enabled"] != false; cfg.Cluster.Enabled != sets {
				t.Errorf("cluster.enabled is %v", cfg.Cluster.Enabled)
			}
		})
	}
	t.Run("plain", func(t *testing.T) {
		cfg := configurations(t, plainManifests(t), func(k *kubelet) {
			k.give("watchword", "DATABASE_URL", "REDIS_URL", "AUTH_CLUSTER_SECRET", "AUTH_STORAGE_KEY")
		})
		if warnings := cfg.Warnings(); len(warnings) > 0 {
			t.Errorf("the manifests bring warnings: %q", warnings)
		}
	})
}

// configurations loads that of each container, and returns the replicas'.
func configurations(t *testing.T, objects []object, change func(*kubelet)) (replica *config.Config) {
	for _, o := range objects {
		pod := podOf(o)
		if pod == nil {
			continue
		}
		k := newKubelet(t, objects)
		change(k)
		for _, entry := range k.environ(pod) {
			if name, _, _ := strings.Cut(entry, "="); !isRead(name) {
				t.Errorf("the %s %s sets %s, which nobody reads", o.kind(), o.name(), name)
			}
		}
		cfg, err := k.load(pod)
		if err != nil {
			t.Fatalf("the %s %s: %v", o.kind(), o.name(), err)
		}
		if o.kind() != "Deployment" {
			continue
		}
		replica = cfg
		if cfg.Cluster.Enabled && cfg.Cluster.InstanceID != k.fields["metadata.name"] {
			t.Errorf("cluster.instance_id is %q, and the pod's name %q", cfg.Cluster.InstanceID, k.fields["metadata.name"])
		}
		if cfg.Server.Address != ":8080" || cfg.Server.MetricsAddress != ":9090" {
			t.Errorf("it listens on %q and %q", cfg.Server.Address, cfg.Server.MetricsAddress)
		}
		// internal/graceful waits up to 31 s for requests, after drain_delay.
		grace := time.Duration(pod.at("terminationGracePeriodSeconds").(float64)) * time.Second
		if grace < cfg.Server.DrainDelay+31*time.Second {
			t.Errorf("a pod is killed after %s, and drain_delay is %s", grace, cfg.Server.DrainDelay)
		}
	}
	return replica
}

// plainManifests are the objects of deploy/k8s.
func plainManifests(t testing.TB) []object {
	t.Helper()
	files, err := filepath.Glob("../../deploy/k8s/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var objects []object
	for _, file := range files {
		if name := filepath.Base(file); name == "kustomization.yaml" || name == "secret.example.yaml" {
			continue
		}
		made, err := readObjects(readText(t, file))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		objects = append(objects, made...)
	}
	return objects
}

func readText(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
