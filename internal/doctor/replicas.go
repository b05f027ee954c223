package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/timing"
)

var replicaChecks = []Check{
	{"replica-answers", "Each replica answers at its URL", Error,
		"A replica that others cannot reach learns of keys and revocations from the database alone, and so do they from it: while the database is away, its tokens may be refused and what it revokes is not known elsewhere.", replicaAnswers},
	{"replica-secret", "What answers at each URL is a replica with this cluster's secret", Error,
		"Replicas believe each other by `cluster.secret`. One that has another secret refuses the tokens of the others, and they refuse its own.", replicaSecret},
	{"replica-urls", "Each URL leads to a replica of its own", Warning,
		"A URL that leads to a load balancer, or to a replica that another URL is for, hides one that is asked by nobody.", replicaURLs},
	{"replica-unlisted", "The other replicas ask each live replica", Warning,
		"A replica that stands in the registry and that no URL leads to is not asked for its keys and revocations while the database is away.", replicaUnlisted},
	{"replica-ids", "Each replica has an instance id of its own", Error,
		"Of two replicas with one `cluster.instance_id` only one takes traffic, and which one changes whenever one of them starts.", replicaIDs},
	{"replica-ready", "Each replica is ready", Error,
		"A replica that is not ready answers 503 on `/readyz`, and a load balancer sends it nothing. The finding has the reason.", replicaReady},
	{"replica-version", "All replicas are of one version", Warning,
		"Versions that follow each other can run side by side for the time of an upgrade, and are not meant to stay so.", replicaVersion},
	{"replica-database", "All replicas use the same database", Error,
		"Users, revocations and signing keys are in the database. A replica on another one accepts what the others have revoked.", replicaDatabase},
	{"replica-key-source", "All replicas have the same secrets and sources of signing keys", Error,
		"Where replicas share a signing key or secret (`tokens.keys`, `AUTH_JWT_SECRET`), one that has another refuses the tokens of the others. With another `storage.key` it cannot read second factors and stored keys.", replicaKeySource},
	{"replica-key", "Replicas that share a signing key sign with the same one", Error,
		"With the same settings two replicas may still reach different HSMs, signers or databases.", replicaKey},
	{"replica-promises", "The settings on which promises rest are the same on all replicas", Error,
		"How long tokens and sessions live, what is revoked how soon and what is limited holds for the whole cluster only if each replica goes by the same settings.", replicaPromises},
	{"replica-settings", "The other settings that replicas share are the same on all", Warning,
		"What differs makes the answer depend on the replica that the load balancer has chosen.", replicaSettings},
	{"replica-administrator", "All replicas name the same first administrator, who can administer", Warning,
		"`ADMIN_GUI_USERNAME` and `ADMIN_GUI_PASSWORD` make an administrator only while there is none. Where they differ, or name another user than the administrator that there is, somebody expects to sign in with them and cannot.", replicaAdministrator},
	{"registry-clocks", "The clocks of the replicas and of the database agree", Error,
		"Times of tokens, keys and revocations are compared between machines. Beyond the leeway, good tokens are refused.", registryClocks},
	{"registry-silent", "No replica has fallen silent", Warning,
		"A replica that ended without leaving, or that lost the database, is waited for before a new key signs.", registrySilent},
	{"registry-rows", "The cluster's secret vouches for each row of the registry", Error,
		"A row that no holder of `cluster.secret` has written is not believed. It is of a replica with another secret, or of somebody who can write to the database.", registryRows},
	{"registry-keys", "Each live replica has taken in the keys of all others", Error,
		"A replica that does not read the registry refuses tokens of new keys, and new keys that wait for it do not sign.", registryKeys},
}

const errNobody = "no replica was found that could be asked: set cluster.advertise_url on each, or name their URLs (--peers)"

// asked returns the replicas that were asked.
func (d *Deployment) asked() ([]Replica, error) {
	switch {
	case !d.Config.Cluster.Enabled:
		return nil, errAlone
	case d.Reach < All:
		return nil, Skip("other replicas are asked only when a person runs the checks")
	case len(d.Replicas) == 0:
		return nil, errors.New(errNobody)
	}
	return d.Replicas, nil
}

// answered returns the replicas that have answered, each once however many URLs lead to it.
func (d *Deployment) answered() ([]Replica, error) {
	all, err := d.asked()
	if err != nil {
		return nil, err
	}
	var list []Replica
	for _, r := range all {
		same := func(other Replica) bool { return other.Facts.Process == r.Facts.Process }
		if r.Err == nil && !slices.ContainsFunc(list, same) {
			list = append(list, r)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no replica answered")
	}
	return list, nil
}

// registry returns what the registry of replicas says.
func (d *Deployment) registry() (*cluster.Status, error) {
	switch {
	case !d.Config.Cluster.Enabled:
		return nil, errAlone
	case d.Cluster != nil:
		return d.Cluster, nil
	case d.ClusterErr != nil:
		return nil, d.ClusterErr
	}
	return nil, errors.New("the registry of replicas was not read")
}

func replicaAnswers(_ context.Context, d *Deployment) (found []Finding, err error) {
	all, err := d.asked()
	if d.DiscoveryErr != nil {
		found = append(found, Finding{"cluster.discovery", d.DiscoveryErr.Error(),
			"see whether cluster.service_url or cluster.static_peers is right, and what the DNS server or Kubernetes answers for it from here"})
	}
	var unasked []string
	for _, r := range all {
		switch {
		case r.Err == nil, cluster.IsStranger(r.Err): // which replica-secret says
		case cluster.HasNoAnswer(r.Err):
			unasked = append(unasked, r.URL)
		default:
			found = append(found, Finding{r.URL, "it gives no answer: " + r.Err.Error(),
				"see whether the replica runs and can be reached at this URL from here and from the other replicas; if it is gone for good, take the URL out of cluster.static_peers, or of what cluster.service_url names"})
		}
	}
	if unasked != nil {
		err = fmt.Errorf("%s: there is no answer for a doctor (404): either a replica of an older version, or alone (cluster.enabled), or no replica", enumerate(unasked))
	}
	return orElse(found, err)
}

func replicaSecret(_ context.Context, d *Deployment) (found []Finding, err error) {
	all, err := d.asked()
	for _, r := range all {
		if r.Err != nil && cluster.IsStranger(r.Err) {
			found = append(found, Finding{r.URL, "what answers there does not have the secret of this cluster: " + r.Err.Error(),
				"give the replica the same AUTH_CLUSTER_SECRET (cluster.secret) as the others have and restart it; if it belongs to another cluster, take its URL away"})
		}
	}
	return found, err
}

func replicaURLs(_ context.Context, d *Deployment) (found []Finding, err error) {
	all, err := d.asked()
	byProcess := map[string][]string{}
	for _, r := range all {
		if r.Err == nil {
			byProcess[r.Facts.Process] = append(byProcess[r.Facts.Process], r.URL)
		}
	}
	for _, r := range all {
		urls := byProcess[r.Facts.Process]
		if r.Err == nil && len(urls) > 1 && urls[0] == r.URL {
			found = append(found, Finding{r.Facts.Instance, enumerate(urls) + " lead to this one replica",
				"give each replica a URL that leads to it alone, and not to a load balancer (cluster.advertise_url, cluster.static_peers)"})
		}
	}
	return found, err
}

func replicaUnlisted(_ context.Context, d *Deployment) (found []Finding, err error) {
	all, err := d.asked()
	if err != nil {
		return nil, err
	}
	status, err := d.registry()
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(all, func(r Replica) bool { return r.Err != nil }) {
		return nil, errors.New("a URL gives no answer, so it is not known which replica it is for")
	}
	// Those that are missing in a list were asked besides. A replica that asks itself has no
	// request.
	inList := func(r Replica) bool {
		return slices.Contains(d.Config.Cluster.StaticPeers, r.URL) || r.Facts.Request.Peer == ""
	}
	isList := d.Config.Cluster.Discovery == config.DiscoveryStatic && slices.ContainsFunc(all, inList)
	for _, live := range status.Replicas {
		listed := func(r Replica) bool { return r.Facts.Instance == live.Instance && (!isList || inList(r)) }
		if live.Standing != cluster.Live || slices.ContainsFunc(all, listed) {
			continue
		}
		mend := "add its URL to cluster.static_peers on all replicas, or to what cluster.service_url names, and to the list that was given here (--peers)"
		if live.URL == "" && d.Config.Cluster.Discovery == config.DiscoveryDatabase {
			mend = "set cluster.advertise_url to the URL at which the others reach it, and restart it"
		}
		found = append(found, Finding{live.Instance, "it is live, and no URL leads to it: while the database is away, the others do not learn its new keys, nor it what they revoke", mend})
	}
	return found, nil
}

func replicaIDs(_ context.Context, d *Deployment) (found []Finding, err error) {
	all, err := d.answered()
	byID := map[string][]string{}
	for _, r := range all {
		byID[r.Facts.Instance] = append(byID[r.Facts.Instance], r.URL)
	}
	for _, r := range all {
		if urls := byID[r.Facts.Instance]; len(urls) > 1 && urls[0] == r.URL {
			found = append(found, Finding{r.Facts.Instance, fmt.Sprintf("%d replicas have this instance id, at %s", len(urls), enumerate(urls)),
				"give each replica a cluster.instance_id of its own, or leave it out, and restart all but one of them"})
		}
	}
	return found, err
}

func replicaReady(_ context.Context, d *Deployment) (found []Finding, err error) {
	all, err := d.answered()
	for _, r := range all {
		if r.Facts.Ready != "" {
			found = append(found, Finding{r.Facts.Instance, "it is not ready: " + r.Facts.Ready,
				"mend what the reason names; the replica's log has the cause. Until then the load balancer sends it no requests"})
		}
		if r.Facts.Problem != "" {
			found = append(found, Finding{r.Facts.Instance, "it cannot " + r.Facts.Problem,
				"see whether this replica reaches the database and Redis, and whether database.url and redis.url are right on it"})
		}
	}
	return found, err
}

func replicaVersion(_ context.Context, d *Deployment) ([]Finding, error) {
	all, err := d.answered()
	if err != nil {
		return nil, err
	}
	groups := divide(said(all), func(f Facts) string { return f.Version })
	if len(groups) < 2 {
		return nil, nil
	}
	return []Finding{{"", describe(groups, func(version string) string { return "version " + version }),
		"bring all replicas to one version. During an upgrade this passes by itself"}}, nil
}

func replicaDatabase(_ context.Context, d *Deployment) (found []Finding, err error) {
	all, err := d.answered()
	if err != nil {
		return nil, err
	}
	read := slices.DeleteFunc(all, func(r Replica) bool { return r.Facts.Problem != "" }) // which replica-ready says
	const mend = "give all replicas the same DATABASE_URL (database.url), or URLs that lead to the same database, and restart those that had another one. What was written into the other database stays there"
	groups := divide(said(read), func(f Facts) string { return f.Installation })
	if len(groups) > 1 {
		found = append(found, Finding{"", describe(groups, func(id string) string { return fmt.Sprintf("the database of installation %q", id) }), mend})
	} else if d.DB != nil && len(groups) == 1 && groups[0].text != d.Installation {
		found = append(found, Finding{"", fmt.Sprintf("the replicas use the database of installation %q, and the settings that were given here lead to that of %q", groups[0].text, d.Installation), mend})
	}
	if groups := divide(said(read), func(f Facts) string { return fmt.Sprint(f.Schema) }); len(found) == 0 && len(groups) > 1 {
		found = append(found, Finding{"", describe(groups, func(version string) string { return "version " + version + " of the schema before it" }),
			"one of them reads a copy that lags behind: have database.url lead to the server that takes the writes"})
	}
	return found, nil
}

// keySettings are those that say by which keys and secrets replicas sign, and under which they
// keep what is secret.
var keySettings = []string{"tokens.keys", "tokens.algorithm", "tokens.algorithms", "tokens.secret", "tokens.previous_secrets", "storage.key", "storage.previous_keys"}

func replicaKeySource(_ context.Context, d *Deployment) ([]Finding, error) {
	return d.compare(func(s config.Setting) bool { return slices.Contains(keySettings, s.Key) })
}

func replicaPromises(_ context.Context, d *Deployment) ([]Finding, error) {
	return d.compare(func(s config.Setting) bool { return s.MustAgree() && !slices.Contains(keySettings, s.Key) })
}

func replicaSettings(_ context.Context, d *Deployment) ([]Finding, error) {
	return d.compare(func(s config.Setting) bool {
		return !s.MustAgree() && !MayDiffer(s.Key) && !slices.Contains(keySettings, s.Key) && !strings.HasPrefix(s.Key, "admin.")
	})
}

// MayDiffer reports whether a setting is a replica's own: where it listens and how it reaches
// others, what fits its machine, and what it writes about itself.
func MayDiffer(key string) bool {
	own := []string{
		"server.address", "server.metrics_address", "server.tls.", "server.max_requests_per_", "database.", "redis.",
		"cluster.instance_id", "cluster.advertise_url", "cluster.ca_file", "cluster.cert_file", "cluster.key_file", "cluster.static_peers",
		"tokens.pkcs11.", "tokens.remote.", "password.workers", "password.queue", "pages.logo_file", "users.init_file",
		"debug.", "log.", "telemetry.",
	}
	return slices.ContainsFunc(own, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
}

// compare returns a finding for each setting of some that is not the same on all replicas.
func (d *Deployment) compare(which func(config.Setting) bool) (found []Finding, err error) {
	all, err := d.answered()
	if err != nil {
		return nil, err
	}
	for _, s := range config.Settings() {
		if !which(s) {
			continue
		}
		groups := divide(said(all), func(f Facts) string { return f.Settings[s.Key] })
		if len(groups) < 2 {
			continue
		}
		show := func(text string) string { return fmt.Sprintf("%.80q", text) }
		if s.Secret != "" {
			show = func(text string) string {
				if text == "" {
					return "none"
				}
				return "a secret with the fingerprint " + text[:min(len(text), 13)]
			}
		}
		found = append(found, Finding{s.Key, describe(groups, show),
			fmt.Sprintf("give all replicas the same %s (%s), and restart those that had another", s.Key, s.Env)})
	}
	return found, nil
}

// replicaKey: what replicas sign with changes at one moment for all, but each notices by itself.
// So those that differ are asked again.
func replicaKey(ctx context.Context, d *Deployment) ([]Finding, error) {
	all, err := d.answered()
	if err != nil {
		return nil, err
	}
	if d.Config.KeysIn() == config.KeysMemory {
		return nil, Skip("each replica makes its own keys (tokens.keys)")
	}
	signs := func(f Facts) string { return f.Signs }
	signing := func(all []Replica) []group {
		return divide(slices.DeleteFunc(said(all), func(f Facts) bool { return f.Signs == "" }), signs) // one without is not ready
	}
	if len(signing(all)) < 2 {
		return nil, nil
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(2 * timing.KeyPoll):
	}
	for i := range all {
		if all[i].Facts, err = d.Ask(ctx, all[i].URL, Question{}); err != nil {
			return nil, fmt.Errorf("%s: %w", all[i].URL, err)
		}
	}
	groups := signing(all)
	if len(groups) < 2 {
		return nil, nil
	}
	return []Finding{{"", describe(groups, func(kid string) string { return "signs with " + kid }),
		"see that all replicas have the same storage.key, and use the same HSM or signer and the same key in it (tokens.pkcs11, tokens.remote)"}}, nil
}

func replicaAdministrator(ctx context.Context, d *Deployment) (found []Finding, err error) {
	if d.Config.Cluster.Enabled && d.Reach == All {
		if found, err = d.compare(func(s config.Setting) bool { return s.Key == "admin.username" || s.Key == "admin.password" }); err != nil {
			return nil, err
		}
	}
	name := d.Config.Admin.Username
	if name == "" {
		return found, nil
	}
	if _, err := d.database(); err != nil {
		return orElse(found, err)
	}
	const mend = "an administrator is made from ADMIN_GUI_USERNAME and ADMIN_GUI_PASSWORD only while there is none at all. Make this one with \"watchword user add --admin\", or set the variables to the administrator that there is, or leave them out"
	key, err := names.UsernameKey(name)
	if err != nil {
		return append(found, Finding{"admin.username", fmt.Sprintf("%q cannot be the name of a user: %v", name, err), mend}), nil
	}
	user, err := d.Store.UserByName(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return append(found, Finding{"admin.username", fmt.Sprintf("there is no user %q", name), mend}), nil
	}
	if err != nil {
		return orElse(found, err)
	}
	claims, err := d.Store.ClaimsOfUser(ctx, user.ID)
	switch {
	case err != nil:
		return orElse(found, err)
	case user.Disabled:
		found = append(found, Finding{"admin.username", fmt.Sprintf("the user %q is disabled", name), mend})
	case !directory.RightsOf(claims).Superuser():
		found = append(found, Finding{"admin.username", fmt.Sprintf("the user %q is no superuser", name), mend})
	}
	return found, nil
}

func registryClocks(_ context.Context, d *Deployment) (found []Finding, err error) {
	status, err := d.registry()
	if err != nil {
		return nil, err
	}
	const mend = "have the clocks of all machines set by NTP, those of the replicas and that of the database"
	var live []cluster.ReplicaStatus
	for _, r := range status.Replicas {
		if r.Standing != cluster.Live {
			continue
		}
		live = append(live, r)
		if r.Clock.Abs() > timing.Leeway {
			found = append(found, Finding{r.Instance, fmt.Sprintf("its clock is %s the database's; %v are allowed for", offset(r.Clock), timing.Leeway), mend})
		}
	}
	if len(found) > 0 || len(live) == 0 {
		return found, nil
	}
	byClock := func(a, b cluster.ReplicaStatus) int { return cmp.Compare(a.Clock, b.Clock) }
	first, last := slices.MaxFunc(live, byClock), slices.MinFunc(live, byClock)
	if apart := first.Clock - last.Clock; apart > timing.Leeway {
		found = append(found, Finding{first.Instance, fmt.Sprintf("its clock is %s that of %s; %v are allowed for", offset(apart), last.Instance, timing.Leeway), mend})
	}
	return found, nil
}

// offset says where a clock is.
func offset(d time.Duration) string {
	if d < 0 {
		return (-d).Round(time.Millisecond).String() + " behind"
	}
	return d.Round(time.Millisecond).String() + " ahead of"
}

func registrySilent(_ context.Context, d *Deployment) (found []Finding, err error) {
	status, err := d.registry()
	if err != nil {
		return nil, err
	}
	for _, r := range status.Replicas {
		if r.Standing == cluster.Silent {
			found = append(found, Finding{r.Instance, fmt.Sprintf("it wrote last %v ago that it is live, and has not left", status.AsOf.Sub(r.BeatAt).Round(time.Second)),
				fmt.Sprintf("see whether it runs and reaches the database. If it is gone for good, nothing is to be done: it is forgotten %v after its last sign of life", timing.Forget)})
		}
	}
	return found, nil
}

func registryRows(_ context.Context, d *Deployment) ([]Finding, error) {
	status, err := d.registry()
	if err != nil || status.Rejected == 0 {
		return nil, err
	}
	return []Finding{{"", fmt.Sprintf("rows of replicas or of their keys for which the secret of this cluster does not vouch, and which no replica believes: %d", status.Rejected),
		"look for a replica with another AUTH_CLUSTER_SECRET on this database, and give it the right one. If there is none, somebody else writes to the database: change its password"}}, nil
}

// registryKeys: a key that was made just now is still on its way.
func registryKeys(_ context.Context, d *Deployment) (found []Finding, err error) {
	status, err := d.registry()
	if err != nil {
		return nil, err
	}
	old := map[string]bool{}
	for _, r := range status.Replicas {
		for _, k := range r.Keys {
			old[k.ID] = status.AsOf.Sub(k.CreatedAt) > timing.Patience
		}
	}
	for _, r := range status.Replicas {
		unseen := slices.DeleteFunc(slices.Clone(r.Unseen), func(kid string) bool { return !old[kid] })
		if r.Standing == cluster.Live && len(unseen) > 0 {
			found = append(found, Finding{r.Instance, fmt.Sprintf("it is live, and has not taken in what other replicas made over %v ago, so that it waits: %s", timing.Patience, enumerate(unseen)),
				"look in its log why it does not read the registry, or does not accept the key: all replicas need the same cluster.algorithms. Then restart it"})
		}
	}
	return found, nil
}

// A group is the replicas of which one thing is the same.
type group struct {
	text      string
	instances []string
}

// divide puts replicas into groups, in the order of their first ones.
func divide(all []Facts, by func(Facts) string) (groups []group) {
	for _, f := range all {
		text := by(f)
		i := slices.IndexFunc(groups, func(g group) bool { return g.text == text })
		if i < 0 {
			i, groups = len(groups), append(groups, group{text: text})
		}
		if !slices.Contains(groups[i].instances, f.Instance) {
			groups[i].instances = append(groups[i].instances, f.Instance)
		}
	}
	return groups
}

// said returns what replicas have said.
func said(all []Replica) []Facts {
	facts := make([]Facts, len(all))
	for i, r := range all {
		facts[i] = r.Facts
	}
	return facts
}

// describe says which replicas have what.
func describe(groups []group, show func(text string) string) string {
	parts := make([]string, len(groups))
	for i, g := range groups {
		parts[i] = enumerate(g.instances) + ": " + show(g.text)
	}
	return strings.Join(parts, "; ")
}

// enumerate lists some things, or the first of many.
func enumerate(list []string) string {
	const most = 10
	if len(list) > most {
		return fmt.Sprintf("%s and %d others", strings.Join(list[:most], ", "), len(list)-most)
	}
	if n := len(list); n > 1 {
		return strings.Join(list[:n-1], ", ") + " and " + list[n-1]
	}
	return strings.Join(list, "")
}
