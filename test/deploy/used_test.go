package deploy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// samples are other values than the chart's own, by path, where there is no obvious one.
var samples = map[string]string{
	"image.digest":                       "sha256:" + strings.Repeat("0", 64),
	"image.pullPolicy":                   "Always",
	"image.pullSecrets":                  "[{name: registry}]",
	"server.public_url":                  "https://login.example.com",
	"server.trusted_proxies":             "[10.0.0.1]",
	"server.forwarded_header":            "Forwarded",
	"server.cors_origins":                "['https://app.example.com']",
	"server.drain_delay":                 "7s",
	"server.replicaCount":                "2",
	"cluster.discovery":                  "dns",
	"cluster.static_peers":               "['https://a.example.com']",
	"cluster.algorithms":                 "[ES256]",
	"database.acquire_timeout":           "7s",
	"config.tokens.keys":                 "memory",
	"secrets.existingSecretKeys":         "[ADMIN_GUI_PASSWORD]",
	"secrets.as":                         "files",
	"service.type":                       "NodePort",
	"service.podIPFamily":                "IPv6",
	"networkPolicy.clients":              "[{podSelector: {}}]",
	"networkPolicy.prometheus":           "[{podSelector: {}}]",
	"networkPolicy.databasePorts":        "[1]",
	"networkPolicy.redisPorts":           "[1]",
	"networkPolicy.apiServerPorts":       "[1]",
	"networkPolicy.extraEgress":          "[{ports: [{port: 1}]}]",
	"resources.limits.memory":            "1Gi",
	"goMemoryLimit":                      "1GiB",
	"tolerations":                        "[{operator: Exists}]",
	"topologySpreadConstraints":          "[{maxSkew: 1}]",
	"extraEnv":                           "[{name: A, value: b}]",
	"extraVolumes":                       "[{name: a, emptyDir: {}}]",
	"extraVolumeMounts":                  "[{name: a, mountPath: /a}]",
	"podDisruptionBudget.maxUnavailable": "2",
}

// needs are the values without which others mean nothing, by the beginning of their paths.
var needs = []struct{ path, values string }{
	{"cluster.enabled", "{server: {replicaCount: 1}}"},
	{"server.tls.mutual", "{server: {tls: {secretName: t}}}"},
	{"redis.ca_file", "{redis: {enabled: true}}"},
	{"networkPolicy.redisPorts", "{redis: {enabled: true}}"},
	{"ingress.", "{ingress: {enabled: true}}"},
	{"autoscaling.", "{autoscaling: {enabled: true}}"},
	{"serviceMonitor.", "{serviceMonitor: {enabled: true}}"},
	{"migration.secretKey", "{migration: {secretName: owner}}"},
}

// Every value is used: with another one, other objects are rendered.
func TestEveryValueIsUsed(t *testing.T) {
	c := readChart(t)
	tried := 0
	readValues(t).walk(func(v *value) {
		if !v.isLeaf() {
			return
		}
		tried++
		least, err := parseYAML(base)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range needs {
			if strings.HasPrefix(v.path, n.path) && !strings.HasSuffix(v.path, ".enabled") || v.path == n.path {
				needed, err := parseYAML(n.values)
				if err != nil {
					t.Fatal(err)
				}
				least = merge(least, needed)
			}
		}
		if name, found := strings.CutSuffix(v.path, ".secretKey"); found && strings.HasPrefix(v.path, "secrets.") {
			least = merge(least, nested(name+".secretName", "another"))
		}
		changed := nested(v.path, another(t, v))
		before, _, err := c.texts(least)
		if err != nil {
			t.Fatalf("%s: %v", v.path, err)
		}
		after, _, err := c.texts(merge(least, changed))
		if err != nil {
			t.Errorf("%s: with %v: %v", v.path, changed, err)
			return
		}
		if slices.Equal(before, after) {
			t.Errorf("%s is not used: with %v the same objects are rendered", v.path, changed)
		}
	})
	if tried < 100 {
		t.Errorf("only %d values were tried", tried)
	}
}

// another returns another value than the chart's own.
func another(t testing.TB, v *value) any {
	t.Helper()
	if text, found := samples[v.path]; found {
		m, err := parseYAML("value: " + text)
		if err != nil {
			t.Fatal(err)
		}
		return m["value"]
	}
	switch own := v.plain(t).(type) {
	case bool:
		return !own
	case float64:
		return own + 1
	case string:
		return own + "9x"
	case map[string]any:
		return map[string]any{"example.com/a": "b"}
	}
	t.Fatalf("samples has no other value for %s", v.path)
	return nil
}

// nested returns a mapping that has a value at a path.
func nested(path string, value any) map[string]any {
	keys := strings.Split(path, ".")
	for _, key := range slices.Backward(keys) {
		value = map[string]any{key: value}
	}
	return value.(map[string]any)
}

// A misspelt value fails, wherever it stands, and so does one of another kind.
func TestMisspeltValues(t *testing.T) {
	c := readChart(t)
	least, err := parseYAML(base)
	if err != nil {
		t.Fatal(err)
	}
	// All groups of values, and those of Kubernetes, which the API server knows.
	open := []string{"resources", "resources.requests", "resources.limits"}
	groups := []string{""}
	readValues(t).walk(func(v *value) {
		if !v.isLeaf() && !slices.Contains(open, v.path) {
			groups = append(groups, v.path)
		}
	})
	for _, group := range append(groups, "config.limits.login", "config.tokens.remote", "config.log") {
		path := strings.TrimPrefix(group+".replica_Count", ".")
		if _, _, err := c.render(merge(least, nested(path, "x"))); err == nil || !strings.Contains(err.Error(), "replica_Count") {
			t.Errorf("%s is accepted: %v", path, err)
		}
	}
	for path, value := range map[string]any{
		"server.replicaCount": "three", "cluster.enabled": "yes", "cluster.discovery": "consul", "cluster.static_peers": "https://a.example.com",
		"server.drain_delay": "5 seconds", "secrets.as": "file", "service.port": 70000.0, "networkPolicy.databasePorts": []any{},
		"server.public_url": "auth.example.com", "config.tokens.keys": "redis", "config.tokens.token_duration": 30.0, "image.digest": "sha256:12",
		// What the chart sets, or what is secret, does not belong there.
		"cluster.instance_id": "auth-0", "cluster.secret": "s", "server.address": ":80", "database.url": "postgres://u:p@db/x",
		"redis.url": "redis://redis", "config.admin.password": "p", "config.storage.key": "k", "config.tokens.secret": "s",
		"config.server.address": ":80", "config.cluster.enabled": true,
	} {
		if _, _, err := c.render(merge(least, nested(path, value))); err == nil {
			t.Errorf("%s: %v is accepted", path, value)
		}
	}
}

// What cannot work is refused with a sentence that says what to change.
func TestRefused(t *testing.T) {
	c := readChart(t)
	for _, r := range []struct{ values, says string }{
		{"{}", "server.public_url is needed"},
		{"{server: {public_url: 'https://a.example.com'}}", "set secrets.existingSecret, secrets.AUTH_CLUSTER_SECRET.secretName"},
		{"server: {public_url: 'https://a.example.com'}\nredis: {enabled: true}\nsecrets: {DATABASE_URL: {value: a}, AUTH_CLUSTER_SECRET: {value: b}, AUTH_STORAGE_KEY: {value: c}}", "the secret REDIS_URL is needed"},
		{base + "cluster: {enabled: false}", "server.replicaCount above 1 needs cluster.enabled"},
		{base + "cluster: {enabled: false}\nautoscaling: {enabled: true}", "autoscaling.enabled needs cluster.enabled"},
		{base + "autoscaling: {enabled: true, maxReplicas: 2}", "autoscaling.maxReplicas is less"},
		{base + "server: {public_url: 'https://a.example.com', tls: {mutual: true}}", "server.tls.mutual needs"},
		{base + "secrets: {existingSecret: a, DATABASE_URL: {value: 'sqlite:data.db'}}", "SQLite would be a file in a pod"},
		{base + "secrets: {existingSecret: a, DATABASE_URL: {value: a, secretName: b}}", "has a value and a secretName"},
	} {
		if _, _, err := c.render(row{r.says, r.values}.parsed(t)); err == nil || !strings.Contains(err.Error(), r.says) {
			t.Errorf("%s\nis answered %v", r.values, err)
		}
	}
}

// No secret stands anywhere but in the Secret.
func TestSecretsStandInSecretsAlone(t *testing.T) {
	c := readChart(t)
	for _, r := range matrix {
		objects, notes, err := c.render(r.parsed(t))
		if err != nil {
			t.Fatal(err)
		}
		text := notes + canonical(t, slices.DeleteFunc(objects, func(o object) bool { return o.kind() == "Secret" }))
		for name, secret := range asObject(r.parsed(t)["secrets"]) {
			value, _ := asObject(secret)["value"].(string)
			if value == "" || name == "ADMIN_GUI_USERNAME" {
				continue
			}
			if strings.Contains(text, value) {
				t.Errorf("%s: the value of %s stands outside of the Secret", r.name, name)
			}
		}
	}
}

// essentials are where the manifests and the chart say the same of the replicas, and may not
// come apart.
var essentials = map[string][]string{
	"Deployment": {
		"spec.strategy", "spec.minReadySeconds", "spec.template.spec.automountServiceAccountToken", "spec.template.spec.enableServiceLinks",
		"spec.template.spec.terminationGracePeriodSeconds", "spec.template.spec.securityContext",
		"spec.template.spec.containers.0.args", "spec.template.spec.containers.0.ports",
		"spec.template.spec.containers.0.startupProbe", "spec.template.spec.containers.0.livenessProbe", "spec.template.spec.containers.0.readinessProbe",
		"spec.template.spec.containers.0.resources", "spec.template.spec.containers.0.securityContext", "spec.template.spec.containers.0.volumeMounts",
	},
	"Job": {
		"spec.backoffLimit", "spec.activeDeadlineSeconds", "spec.template.spec.restartPolicy", "spec.template.spec.securityContext",
		"spec.template.spec.automountServiceAccountToken", "spec.template.spec.containers.0.args", "spec.template.spec.containers.0.securityContext",
	},
	"Role":                    {"rules"},
	"ServiceAccount":          {"automountServiceAccountToken"},
	"PodDisruptionBudget":     {"spec.maxUnavailable", "spec.unhealthyPodEvictionPolicy"},
	"HorizontalPodAutoscaler": {"spec.minReplicas", "spec.metrics"},
	"NetworkPolicy":           {"spec.policyTypes", "spec.ingress"},
}

// The plain manifests and the chart, with the same wishes, give the same replicas.
func TestManifestsAndChartAgree(t *testing.T) {
	c := readChart(t)
	values, err := parseYAML(`
fullnameOverride: watchword
server: {public_url: https://auth.example.com, trusted_proxies: [192.0.2.0/24], forwarded_header: X-Forwarded-For}
redis: {enabled: true}
secrets: {existingSecret: watchword, existingSecretKeys: [ADMIN_GUI_USERNAME, ADMIN_GUI_PASSWORD, AUTH_JWT_SECRET]}
autoscaling: {enabled: true}
ingress: {enabled: true, tlsSecretName: watchword-tls}
networkPolicy: {prometheus: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]}
`)
	if err != nil {
		t.Fatal(err)
	}
	rendered, _, err := c.render(values)
	if err != nil {
		t.Fatal(err)
	}
	plain := plainManifests(t)
	kinds := func(objects []object) map[string]int {
		n := map[string]int{}
		for _, o := range objects {
			n[o.kind()]++
		}
		return n
	}
	of := kinds(rendered)
	delete(of, "Pod") // helm test
	of["Namespace"]++
	if !maps.Equal(of, kinds(plain)) {
		t.Errorf("the chart makes %v, the manifests are %v", of, kinds(plain))
	}
	for kind, paths := range essentials {
		ours, theirs := one(t, plain, kind), one(t, rendered, kind)
		for _, path := range paths {
			if a, b := fmt.Sprint(ours.at(path)), fmt.Sprint(theirs.at(path)); a != b || a == "<nil>" {
				t.Errorf("%s %s: the manifests have\n%s\nand the chart\n%s", kind, path, a, b)
			}
		}
	}

	// The replicas that come of them have the same settings, but for the name of the namespace.
	environ := func(objects []object) []string {
		k := newKubelet(t, objects)
		list := k.environ(podOf(one(t, objects, "Deployment")))
		slices.Sort(list)
		return list
	}
	if a, b := environ(plain), environ(rendered); !slices.Equal(a, b) {
		t.Errorf("the variables are\n%q in the manifests, and\n%q in the chart", a, b)
	}
	load := func(objects []object) string {
		cfg, err := newKubelet(t, objects).load(podOf(one(t, objects, "Deployment")))
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		if err := cfg.Print(&text); err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(text.String(), "watchword-peers.watchword.svc", "watchword-peers."+namespace+".svc")
	}
	a, b := strings.Split(load(plain), "\n"), strings.Split(load(rendered), "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Errorf("the manifests have the setting %q, and the chart %q", a[i], b[i])
		}
	}
}

// The kustomization has all manifests but the example of a Secret, and the Job, which runs
// before the others.
func TestKustomization(t *testing.T) {
	k := readYAML(t, "../../deploy/k8s/kustomization.yaml")
	var n int
	for _, file := range k["resources"].([]any) {
		made, err := readObjects(readText(t, "../../deploy/k8s/"+file.(string)))
		if err != nil {
			t.Fatal(err)
		}
		n += len(made)
	}
	if all := plainManifests(t); n != len(all)-1 {
		t.Errorf("it has %d objects of %d", n, len(all))
	}
}

// Nothing starts with the example of a Secret as it stands.
func TestExampleSecretIsRefused(t *testing.T) {
	example, err := readObjects(readText(t, "../../deploy/k8s/secret.example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	objects := append(plainManifests(t), example...)
	_, err = newKubelet(t, objects).load(podOf(one(t, objects, "Deployment")))
	for _, key := range []string{"database.url", "redis.url", "cluster.secret", "storage.key"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s is accepted: %v", key, err)
		}
	}
}
