package deploy

import (
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// Replicas run with what the chart gives to the pods: their settings, variables and secrets.
// Here is no Kubernetes to be asked for the others, so they find each other in the database.
func TestReplicasRun(t *testing.T) {
	c := readChart(t)
	database, redis := testenv.Postgres(t), testenv.Redis(t)
	objects, _, err := c.render(row{"", base + `
server: {public_url: https://auth.example.com, drain_delay: 0s}
cluster: {discovery: database}
redis: {enabled: true}
secrets: {existingSecret: watchword, as: files, existingSecretKeys: [ADMIN_GUI_USERNAME, ADMIN_GUI_PASSWORD]}
`}.parsed(t))
	if err != nil {
		t.Fatal(err)
	}
	var worlds []*replica.World
	for _, pod := range []string{"auth-watchword-6d4cf56db6-aaaaa", "auth-watchword-6d4cf56db6-bbbbb"} {
		k := newKubelet(t, objects)
		k.fields["metadata.name"] = pod
		k.give("watchword", "AUTH_CLUSTER_SECRET", "AUTH_STORAGE_KEY", "ADMIN_GUI_USERNAME", "ADMIN_GUI_PASSWORD")
		k.secrets["watchword"]["DATABASE_URL"], k.secrets["watchword"]["REDIS_URL"] = database, redis
		loaded, err := k.load(podOf(one(t, objects, "Deployment")))
		if err != nil {
			t.Fatal(err)
		}
		worlds = append(worlds, replica.New(t, func(cfg *config.Config) {
			*cfg = *loaded
			kit.Cheap(cfg)
			cfg.Cluster.AdvertiseURL = "" // nothing listens there
		}))
	}
	for i, w := range worlds {
		w.Accepts(w.Login("admin").AccessToken)
		worlds[1-i].Accepts(w.Login("admin").AccessToken)
		w.WantBackend("redis", "ok")
	}
}
