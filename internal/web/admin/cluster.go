package admin

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/internal/web/page"
)

const clusterPath = "/admin/cluster"

func (f *face) mountCluster() { f.get(clusterPath, f.cluster) }

// A clusterPage is the replicas and their keys, as one replica sees them.
type clusterPage struct {
	Instance string // the replica that answers
	Alone    bool   // it belongs to no cluster
	AsOf     time.Time
	Replicas []replica // in the order in which they are drawn
	Notices  []notice
	Keys     []signingKey
	Secrets  []string // kids of signing secrets that this replica accepts
	Signs    string   // the kid of the secret that signs; empty: a key does
	Version  string   // of this replica
}

// A replica is one of the cluster.
type replica struct {
	cluster.ReplicaStatus
	Here   bool           // it answers
	Kind   page.BadgeKind // how it is
	Word   string         // the same in a word or two
	Behind []string       // makers of keys that it has not taken in
	Faults []notice       // what is wrong with it
}

// A signingKey is a key with its life.
type signingKey struct {
	cluster.KeyStatus
	Shared bool          // its kid does not begin with the name of a replica
	Owner  string        // who signs with it; empty: there is one replica alone
	Clock  time.Duration // by how much its maker's clock is ahead
}

// cluster shows the replicas, and the keys of all.
func (f *face) cluster(v *visit) error {
	ctx := v.Request.Context()
	view, err := f.Cluster.View(ctx, v.By.Token, v.Client.Address)
	var p clusterPage
	switch {
	case errors.Is(err, cluster.ErrAlone):
		own, err := f.Cluster.OwnKeys(ctx, v.By.Token, v.Client.Address)
		if err != nil {
			return err
		}
		p = aloneOf(f.Instance, own)
	case err != nil:
		return err
	default:
		p = clusterOf(view)
	}
	p.Version = f.Version
	v.Compress() // nothing in it is secret, and it is large
	if v.IsHTMX() {
		return v.Fragment(http.StatusOK, clusterLive(p))
	}
	return v.show(page.Layout{Title: "Cluster", Active: clusterPath, Live: true, Content: clusterContent(p)})
}

func aloneOf(instance string, own cluster.OwnKeys) clusterPage {
	p := clusterPage{Instance: instance, Alone: true, AsOf: own.AsOf}
	p.Secrets, p.Signs = secretsOf(own.Secrets)
	for _, k := range own.Keys {
		p.Keys = append(p.Keys, signingKey{KeyStatus: k, Shared: isShared(k)})
	}
	return p
}

// isShared reports whether a key belongs to no single replica: the kid of one that does begins
// with its name.
func isShared(k cluster.KeyStatus) bool { return !strings.HasPrefix(k.ID, k.Instance+"-") }

// secretsOf returns the kids of accepted signing secrets, and which of them signs.
func secretsOf(kids []string) (accepted []string, signs string) {
	if len(kids) > 1 && slices.Contains(kids[1:], kids[0]) {
		signs = kids[0]
	}
	accepted = slices.Clone(kids)
	slices.Sort(accepted)
	return slices.Compact(accepted), signs
}

func clusterOf(view cluster.View) clusterPage {
	p := clusterPage{Instance: view.Instance, AsOf: view.AsOf}
	makers := map[string]string{} // by kid
	made := map[string]time.Time{}
	for _, r := range view.Replicas {
		for _, k := range r.Keys {
			makers[k.ID], made[k.ID] = k.Instance, k.CreatedAt.Add(-r.Clock)
			one := signingKey{KeyStatus: k, Shared: isShared(k), Owner: k.Instance, Clock: r.Clock}
			if one.Shared {
				one.Owner = "all replicas"
			}
			if r.Standing != cluster.Live {
				one.Clock = 0
			}
			p.Keys = append(p.Keys, one)
		}
	}
	slices.SortStableFunc(p.Keys, func(a, b signingKey) int {
		return cmp.Or(cmp.Compare(a.Instance, b.Instance), a.CreatedAt.Compare(b.CreatedAt))
	})
	here := cluster.ReplicaStatus{}
	for _, r := range view.Replicas {
		if r.Instance == view.Instance {
			here = r
			p.Secrets, p.Signs = secretsOf(r.Secrets)
		}
	}
	for _, r := range view.Replicas {
		if r.Standing == cluster.Gone && !slices.ContainsFunc(r.Keys, func(k cluster.KeyStatus) bool { return !isShared(k) }) {
			continue // what is left of it belongs to all
		}
		one := replica{ReplicaStatus: r, Here: r.Instance == view.Instance}
		for _, kid := range r.Unseen {
			if maker := makers[kid]; !slices.Contains(one.Behind, maker) {
				one.Behind = append(one.Behind, maker)
			}
		}
		one.judge(view, here, made)
		p.Replicas = append(p.Replicas, one)
		p.Notices = append(p.Notices, one.Faults...)
	}
	p.Notices = append(p.Notices, others(view)...)
	sorted(p.Notices)
	return p
}

const (
	// takingIn is how long a replica may take to take in a key.
	takingIn = 10 * time.Second
	// clockOff is from when on a clock is said to be off. What the beat took is in it.
	clockOff = time.Second
)

// judge finds what is wrong with a replica, as seen from here.
func (r *replica) judge(view cluster.View, here cluster.ReplicaStatus, made map[string]time.Time) {
	fault := func(kind page.BadgeKind, title, text string) {
		r.Faults = append(r.Faults, notice{Kind: kind, Title: title, Text: text})
	}
	r.Kind, r.Word = page.Good, "up to date"
	switch r.Standing {
	case cluster.Gone:
		r.Kind, r.Word = page.Neutral, "gone"
		return
	case cluster.Silent:
		r.Kind, r.Word = page.Bad, "silent"
		fault(page.Bad, fmt.Sprintf("%s has been silent for %s", r.Instance, lasting(view.AsOf.Sub(r.BeatAt))),
			fmt.Sprintf("It stopped without leaving, or it cannot reach the database. Its keys go on to verify. If it should run, read its log; if it is not coming back, it is forgotten %s after it was last heard.", lasting(timing.Forget)))
		return
	}
	if len(r.Behind) > 0 {
		r.Kind, r.Word = page.Accent, "taking in keys"
		if late := r.late(view.AsOf, made); late > takingIn {
			r.Kind, r.Word = page.Bad, "behind"
			fault(page.Bad, fmt.Sprintf("%s is behind", r.Instance),
				fmt.Sprintf("It has not taken in keys of %s for %s, and refuses their tokens until it does unless it can ask for them. Read its log: it may not reach the database or the other replicas.", enumerated(r.Behind), lasting(late)))
		}
	}
	if off := r.Clock.Abs(); off > clockOff {
		kind, then := page.Caution, "That is within what is allowed, and a sign that its clock is not kept right."
		if off > timing.Leeway {
			kind, then = page.Bad, "Good tokens are refused, and revocations by time may miss some."
		}
		direction := "ahead of"
		if r.Clock < 0 {
			direction = "behind"
		}
		fault(kind, fmt.Sprintf("The clock of %s is %s %s the database's", r.Instance, lasting(off), direction),
			then+" Have its machine follow a time server (NTP). Up to "+lasting(timing.Leeway)+" are allowed for.")
	}
	if r.Instance != here.Instance && here.Instance != "" {
		if r.Config != here.Config {
			fault(page.Bad, fmt.Sprintf("%s has other settings than %s", r.Instance, here.Instance),
				"Settings of tokens, sessions, revocation, state, limits, mfa, cluster.algorithms or admin.fresh_for differ. Compare what \"watchword config\" prints on both, and restart the one that is wrong.")
		}
		accepted, signs := secretsOf(r.Secrets)
		hereAccepted, hereSigns := secretsOf(here.Secrets)
		if !slices.Equal(accepted, hereAccepted) || signs != hereSigns {
			fault(page.Bad, fmt.Sprintf("%s has other signing secrets than %s", r.Instance, here.Instance),
				"One of them refuses tokens of the other. Give all replicas the same tokens.secret and tokens.previous_secrets; they read them again without a restart.")
		}
		if r.Version != here.Version {
			fault(page.Caution, fmt.Sprintf("%s runs version %s, and %s runs %s", r.Instance, r.Version, here.Instance, here.Version),
				"During an upgrade that is as it should be. Finish the upgrade, or take it back.")
		}
	}
	for _, f := range r.Faults {
		if f.Kind == page.Bad && r.Kind != page.Bad {
			r.Kind, r.Word = page.Bad, "differs"
		} else if r.Kind == page.Good {
			r.Kind, r.Word = page.Caution, "look"
		}
	}
}

// late is for how long the oldest key has been there that the replica has not taken in.
func (r *replica) late(now time.Time, made map[string]time.Time) (late time.Duration) {
	for _, kid := range r.Unseen {
		late = max(late, now.Sub(made[kid]))
	}
	return late
}

// others are faults of no single replica.
func others(view cluster.View) (list []notice) {
	if view.Rejected > 0 {
		list = append(list, notice{Kind: page.Bad, Title: fmt.Sprintf("Rows of the registry that are not believed: %d", view.Rejected),
			Text: "They are not signed with the secret of this cluster. A replica has another cluster.secret, or somebody else writes into the database."})
	}
	for _, peer := range view.Peers {
		if peer.Problem == "" || peer.Self {
			continue
		}
		name := cmp.Or(peer.Instance, peer.URL)
		list = append(list, notice{Kind: page.Caution, Title: fmt.Sprintf("%s cannot ask %s for its keys", view.Instance, name),
			Text: fmt.Sprintf("The address is %s: %s. Keys come over the database as well, so tokens go on to be accepted while that is well.", peer.URL, strings.TrimSuffix(peer.Problem, "."))})
	}
	return list
}

// ahead writes by how much a clock is ahead of the database's, or behind it.
func ahead(d time.Duration) string {
	switch {
	case d.Abs() < 100*time.Millisecond: // what the beat took is in it
		return "right"
	case d < 0:
		return lasting(d) + " behind"
	}
	return lasting(d) + " ahead"
}

// runs reports whether a replica is heard of.
func (p clusterPage) runs(instance string) bool {
	return slices.ContainsFunc(p.Replicas, func(r replica) bool { return r.Instance == instance && r.Standing == cluster.Live })
}

// well says that nothing is wrong.
func (p clusterPage) well() string {
	if p.Alone {
		return "This replica is alone, and nothing needs attention."
	}
	running := 0
	for _, r := range p.Replicas {
		if r.Standing == cluster.Live {
			running++
		}
	}
	if running == 1 {
		return "One replica runs, and nothing needs attention."
	}
	return fmt.Sprintf("%d replicas run, and each has the keys of all.", running)
}

// thumbprint is the part of a kid by which people tell it from others.
func thumbprint(k signingKey) string {
	id := k.ID
	if !k.Shared {
		id = strings.TrimPrefix(id, k.Instance+"-")
	}
	return shortened(id, 8)
}

// shortened cuts a text to so many characters.
func shortened(s string, most int) string {
	runes := []rune(s)
	if len(runes) <= most {
		return s
	}
	return string(runes[:most])
}

func (k signingKey) label() string { return strings.TrimSpace(k.Owner+" "+thumbprint(k)) + "…" }

// by returns a moment of the maker's clock by the clock of the page.
func (k signingKey) by(t time.Time) time.Time { return t.Add(-k.Clock) }

// A step is what happens to a key next.
type step struct {
	At   time.Time
	Key  signingKey
	What string
}

// next are the next steps of all keys, the soonest first.
func (p clusterPage) next() (steps []step) {
	for _, k := range p.Keys {
		s := step{Key: k}
		switch k.Phase {
		case keyring.Pending:
			s.At, s.What = k.by(k.CreatedAt), "is published"
		case keyring.Published:
			s.At, s.What = k.by(k.ActivateAt), "begins to sign"
		case keyring.Active:
			s.At, s.What = k.by(k.RetireAt), "signs no more; what it has signed goes on to be accepted"
		case keyring.Retiring:
			s.At, s.What = k.by(k.RemoveAt), "is removed, when the last token that it signed has expired"
		case keyring.Revoked:
			s.At, s.What = k.by(k.RemoveAt), "is forgotten, when everything that it signed would have expired anyway"
		default:
			continue
		}
		steps = append(steps, s)
	}
	slices.SortStableFunc(steps, func(a, b step) int { return a.At.Compare(b.At) })
	return steps
}

// timeline draws the lives of the keys.
func (p clusterPage) timeline() page.Timeline {
	t := page.Timeline{Title: "Lives of the signing keys", Now: p.AsOf, From: p.AsOf, To: p.AsOf}
	for _, k := range p.Keys {
		row := page.TimelineRow{Label: k.label()}
		end := time.Time{} // of what was before a revocation
		if !k.RevokedAt.IsZero() {
			end = k.RevokedAt
		}
		add := func(from, to time.Time, kind page.SegmentKind, text string) {
			if !end.IsZero() && to.After(end) && kind != page.Broken {
				to = end
			}
			if from, to = k.by(from), k.by(to); from.Before(to) {
				row.Segments = append(row.Segments, page.Segment{From: from, To: to, Kind: kind, Text: text})
			}
		}
		add(k.CreatedAt, k.ActivateAt, page.Coming, "published")
		add(k.ActivateAt, k.RetireAt, page.Current, "signs")
		add(k.RetireAt, k.RemoveAt, page.Ending, "verifies only")
		if !end.IsZero() {
			add(end, k.RemoveAt, page.Broken, "revoked")
		}
		t.Rows = append(t.Rows, row)
		for _, s := range row.Segments {
			if s.From.Before(t.From) {
				t.From = s.From
			}
			if s.To.After(t.To) {
				t.To = s.To
			}
		}
	}
	return t
}

// phaseKind is how the phase of a key looks in a badge.
func phaseKind(p keyring.Phase) page.BadgeKind {
	switch p {
	case keyring.Active:
		return page.Good
	case keyring.Published, keyring.Pending:
		return page.Accent
	case keyring.Revoked:
		return page.Bad
	}
	return page.Neutral
}
