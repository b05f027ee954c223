package admin

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/activity"
	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/internal/web/page"
)

const overviewPath = "/admin"

func (f *face) mountOverview() { f.get(overviewPath, f.overview) }

const (
	recently    = 5 * time.Minute // what "now" is
	long        = 48 * time.Hour  // after which nothing is known
	defaultSpan = time.Hour
)

// An overview is what goes on, at one replica or at all.
type overview struct {
	Span      time.Duration
	Replica   string          // empty: all
	Now       activity.Point  // the sum of the last minutes
	Series    activity.Series // of the span
	Step      time.Duration
	AsOf      time.Time
	Replicas  []replicaRow
	Notices   []notice
	Beginning bool // hardly anything has happened in this installation
	Rights    directory.Rights
	Origin    string // at which applications reach this service
}

// A replicaRow is one line of the table of replicas.
type replicaRow struct {
	Instance string
	Seen     time.Time
	Writes   bool // it has written lately
	Sum      activity.Point
}

// overview shows what goes on.
func (f *face) overview(v *visit) error {
	span := defaultSpan
	if text := v.Field("span"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			d = 0 // which is no span either
		}
		span = d
	}
	all, err := f.Activity.Overviews(v.Request.Context(), v.Actor(), span, recently, long)
	if err != nil {
		return err
	}
	o := overviewOf(v, all[0], all[1], all[2], v.Field("replica"))
	members, err := f.members(v)
	if err != nil {
		return err
	}
	o.Notices = f.notices(v, o, all[2], members)
	v.Compress() // nothing in it is secret, and it is large
	if v.IsHTMX() {
		return v.Fragment(http.StatusOK, overviewLive(o))
	}
	return v.show(page.Layout{Title: "Overview", Active: overviewPath, Live: true, Content: overviewContent(o)})
}

func overviewOf(v *visit, shown, recent, long activity.Overview, replica string) overview {
	o := overview{Span: shown.Span, Replica: replica, Step: shown.Step, AsOf: shown.AsOf, Series: shown.Total, Rights: v.Rights, Origin: origin(v)}
	now := recent.Total
	if replica != "" {
		o.Series, now = seriesOf(shown, replica), seriesOf(recent, replica)
	}
	o.Now = sum(now)
	o.Replicas = replicaRows(shown, long)
	ever := sum(long.Total)
	o.Beginning = ever.SignIns <= 3 && ever.Renewals == 0 && ever.Verifications == 0
	return o
}

// members returns the cluster as far as the visitor may know it: nil without the right to, and one
// that is Alone without a cluster.
func (f *face) members(v *visit) (*clusterPage, error) {
	if !v.can(directory.KeysRead) {
		return nil, nil
	}
	view, err := f.Cluster.View(v.Request.Context(), v.By.Token, v.Client.Address)
	if errors.Is(err, cluster.ErrAlone) {
		return &clusterPage{Alone: true}, nil
	}
	if err != nil {
		return nil, err
	}
	p := clusterOf(view)
	return &p, nil
}

// origin is the address at which this service is reached.
func origin(v *visit) string {
	if known := v.Kit().PublicURL; known != "" {
		return strings.TrimSuffix(known, "/")
	}
	return "http://" + v.Request.Host
}

// seriesOf returns the figures of one replica; without any if none are known.
func seriesOf(o activity.Overview, instance string) activity.Series {
	for _, s := range o.Replicas {
		if s.Instance == instance {
			return s
		}
	}
	s := activity.Series{Instance: instance, Points: make([]activity.Point, len(o.Total.Points))}
	for i, p := range o.Total.Points {
		s.Points[i].At = p.At
	}
	return s
}

// replicaRows returns all replicas that have run in the last two days.
func replicaRows(shown, long activity.Overview) []replicaRow {
	var rows []replicaRow
	for _, known := range long.Replicas {
		rows = append(rows, replicaRow{
			Instance: known.Instance, Seen: known.Seen, Writes: long.AsOf.Sub(known.Seen) <= 3*activity.Every, Sum: sum(seriesOf(shown, known.Instance)),
		})
	}
	return rows
}

// sum adds up the points of a series. It is known if any of them is.
func sum(s activity.Series) (total activity.Point) {
	for _, p := range s.Points {
		total.Known = total.Known || p.Known
		for _, one := range [][2]*int64{
			{&total.SignIns, &p.SignIns}, {&total.SignInsRefused, &p.SignInsRefused},
			{&total.Renewals, &p.Renewals}, {&total.RenewalsRefused, &p.RenewalsRefused},
			{&total.Verifications, &p.Verifications}, {&total.VerificationsRefused, &p.VerificationsRefused},
			{&total.SessionsBegun, &p.SessionsBegun}, {&total.SessionsEnded, &p.SessionsEnded},
			{&total.Revocations, &p.Revocations}, {&total.LimitsHit, &p.LimitsHit}, {&total.Lockouts, &p.Lockouts},
			{&total.Requests, &p.Requests}, {&total.Failures, &p.Failures},
		} {
			*one[0] += *one[1]
		}
		total.Latency.Add(p.Latency)
		total.Propagation.Add(p.Propagation)
	}
	return total
}

// What calls for attention. The times are far above those of a service that is well.
const (
	slowAnswer      = time.Second
	slowPropagation = time.Second
	fewAttempts     = 20 // below which a share says nothing
	someLockouts    = 5  // that many happen on any day
	someLimits      = 30
)

// notices are what needs attention now, the worst first.
func (f *face) notices(v *visit, o overview, long activity.Overview, members *clusterPage) []notice {
	var list []notice
	add := func(kind page.BadgeKind, href, link, title, text string) {
		if !v.leadsTo(href) {
			href = ""
		}
		list = append(list, notice{kind, title, text, href, link})
	}
	for _, r := range o.Replicas {
		if r.Writes || o.Replica != "" && o.Replica != r.Instance {
			continue
		}
		silent := fmt.Sprintf("%s has not written for %s", r.Instance, lasting(o.AsOf.Sub(r.Seen)))
		switch {
		case members == nil:
			// Whether it should run is not for this visitor to know.
			if o.AsOf.Sub(r.Seen) < timing.Forget {
				add(page.Caution, "", "", silent, "It was stopped, or it cannot reach the shared state. If it was stopped, this goes away by itself.")
			}
		case members.runs(r.Instance) || members.Alone && r.Instance == f.Instance:
			add(page.Bad, checksPath, "See the checks", silent, "It runs, but cannot write into the shared state, where sessions are as well. Read its log, and look at Redis or the database.")
		}
	}
	if members != nil {
		for _, n := range members.Notices {
			add(n.Kind, clusterPath, "See the cluster", n.Title, n.Text)
		}
	}
	n := o.Now
	if n.Failures > 0 {
		kind := page.Caution
		if n.Failures*100 >= n.Requests {
			kind = page.Bad
		}
		add(kind, checksPath, "See the checks", fmt.Sprintf("%s of %s failed", counted(v.Visit, n.Failures, "request", "requests"), v.Number(int(n.Requests))),
			"The service could not do what it was asked (status 5xx), in the last five minutes. The log has the reason of each.")
	}
	if p99 := n.Propagation.Quantile(.99); p99 > slowPropagation {
		add(page.Bad, clusterPath, "See the cluster", "Revocations take "+lasting(p99)+" to be known",
			"That is the 99th percentile of the last five minutes; usually it is far below "+lasting(slowPropagation)+". Until then a replica accepts what was revoked. Look at the database, at Redis, and at the clocks of the replicas.")
	}
	if p99 := n.Latency.Quantile(.99); p99 > slowAnswer {
		add(page.Caution, checksPath, "See the checks", "Answers take "+lasting(p99)+" and more",
			"One of a hundred requests in the last five minutes took as long as that. The database is slow, or there is more to do than the replicas can.")
	}
	if attempts := n.SignIns + n.SignInsRefused; n.SignInsRefused > n.SignIns && attempts >= fewAttempts {
		add(page.Caution, "/admin/limits", "See the limits", fmt.Sprintf("%s of %s sign-ins were refused", v.Number(int(n.SignInsRefused)), v.Number(int(attempts))),
			"Somebody may be guessing passwords, or an application has the wrong ones. The audit trail says from where.")
	}
	if n.Lockouts >= someLockouts {
		add(page.Caution, "/admin/limits", "See the limits", counted(v.Visit, n.Lockouts, "account was locked", "accounts were locked"),
			"Wrong passwords or codes were presented too often, in the last five minutes. Each is unlocked by itself after a while.")
	}
	if n.LimitsHit >= someLimits {
		add(page.Caution, "/admin/limits", "See the limits", counted(v.Visit, n.LimitsHit, "request was refused as too many", "requests were refused as too many"),
			"A client asks more often than its limit allows.")
	}
	if long.Unreadable > 0 {
		add(page.Caution, "", "", "Some figures cannot be read",
			counted(v.Visit, int64(long.Unreadable), "record", "records")+" in the shared state could not be understood and were left out: another version of this service wrote them, or something else did.")
	}
	if long.More {
		add(page.Caution, "", "", "There are more replicas than are shown", fmt.Sprintf("The figures are those of the first %d.", activity.MaxReplicas))
	}
	return sorted(list)
}

// link leads to the same page with another span or replica.
func (o overview) link(span time.Duration, replica string) string {
	q := url.Values{"span": {spanText(span)}}
	if replica != "" {
		q.Set("replica", replica)
	}
	return overviewPath + "?" + q.Encode()
}

func (o overview) here() string { return o.link(o.Span, o.Replica) }

// spanText writes a span as a query has it: 15m, 1h.
func spanText(span time.Duration) string {
	if span < time.Hour {
		return fmt.Sprintf("%dm", span/time.Minute)
	}
	return fmt.Sprintf("%dh", span/time.Hour)
}

func spanWords(span time.Duration) string {
	switch {
	case span == time.Hour:
		return "1 hour"
	case span < time.Hour:
		return fmt.Sprintf("%d minutes", span/time.Minute)
	}
	return fmt.Sprintf("%d hours", span/time.Hour)
}

func (o overview) spans() (tabs []page.Tab) {
	for _, s := range activity.Spans() {
		tabs = append(tabs, page.Tab{Href: o.link(s, o.Replica), Text: spanWords(s), Active: s == o.Span})
	}
	return tabs
}

// maxTabs is how many replicas have a tab of their own; of more, the table leads to each.
const maxTabs = 8

func (o overview) choices() (tabs []page.Tab) {
	tabs = []page.Tab{{Href: o.link(o.Span, ""), Text: "All replicas", Active: o.Replica == ""}}
	names := []string{}
	for _, r := range o.Replicas {
		names = append(names, r.Instance)
	}
	if o.Replica != "" && (len(names) > maxTabs || !slices.Contains(names, o.Replica)) {
		names = []string{o.Replica}
	}
	if len(names) <= maxTabs {
		for _, name := range names {
			tabs = append(tabs, page.Tab{Href: o.link(o.Span, name), Text: name, Active: o.Replica == name})
		}
	}
	return tabs
}

// of says whose figures are shown.
func (o overview) of(v *page.Visit) string {
	if o.Replica != "" {
		return o.Replica
	}
	return counted(v, int64(len(o.Replicas)), "replica", "replicas")
}

// unit says what one point of a chart stands for.
func (o overview) unit() string {
	switch {
	case o.Step < time.Minute:
		return fmt.Sprintf("in each %d seconds", o.Step/time.Second)
	case o.Step == time.Minute:
		return "a minute"
	}
	return fmt.Sprintf("in each %d minutes", o.Step/time.Minute)
}

// A measure is one line of a chart.
type measure struct {
	name string
	of   func(activity.Point) (n float64, known bool)
}

func number(name string, of func(activity.Point) int64) measure {
	return measure{name, func(p activity.Point) (float64, bool) { return float64(of(p)), p.Known }}
}

func quantile(name string, of func(activity.Point) activity.Distribution, q float64) measure {
	return measure{name, func(p activity.Point) (float64, bool) {
		return of(p).Quantile(q).Seconds() * 1000, p.Known && of(p).Count() > 0
	}}
}

// chart draws measures. The newest point is left out while its time is not over: it would look
// like a fall.
func (o overview) chart(title, unit, description string, measures ...measure) page.Chart {
	c := page.Chart{Title: title, Unit: unit, Description: description + " Over the last " + spanWords(o.Span) + "."}
	for _, p := range o.Series.Points {
		c.Times = append(c.Times, p.At)
	}
	for _, m := range measures {
		line := page.Line{Name: m.name, Values: make([]page.Value, len(o.Series.Points))}
		for i, p := range o.Series.Points {
			if !p.Partial {
				n, known := m.of(p)
				line.Values[i] = page.Value{Number: n, Known: known}
			}
		}
		c.Lines = append(c.Lines, line)
	}
	return c
}

func latencyOf(p activity.Point) activity.Distribution     { return p.Latency }
func propagationOf(p activity.Point) activity.Distribution { return p.Propagation }

func (o overview) signIns() page.Chart {
	return o.chart("Sign-ins", o.unit(), "How many sign-ins there were, and how many were refused.",
		number("Signed in", func(p activity.Point) int64 { return p.SignIns }), number("Refused", func(p activity.Point) int64 { return p.SignInsRefused }))
}

func (o overview) sessions() page.Chart {
	return o.chart("Sessions", o.unit(), "How many sessions began, and how many were ended before they expired.",
		number("Begun", func(p activity.Point) int64 { return p.SessionsBegun }), number("Ended", func(p activity.Point) int64 { return p.SessionsEnded }),
		number("Renewals", func(p activity.Point) int64 { return p.Renewals }))
}

func (o overview) verifications() page.Chart {
	return o.chart("Tokens verified here", o.unit(), "How many tokens replicas were asked about. Applications that verify offline do not ask.",
		number("Accepted", func(p activity.Point) int64 { return p.Verifications }), number("Refused", func(p activity.Point) int64 { return p.VerificationsRefused }))
}

func (o overview) revocations() page.Chart {
	return o.chart("Revocations", o.unit(), "How many entries the log of revocations got.", number("Revoked", func(p activity.Point) int64 { return p.Revocations }))
}

func (o overview) propagation() page.Chart {
	return o.chart("Revocations are known after", "milliseconds", "How long after it was written an entry of the log was known.",
		quantile("Half of them", propagationOf, .5), quantile("99 %", propagationOf, .99))
}

func (o overview) latency() page.Chart {
	return o.chart("Answers take", "milliseconds", "How long requests took.", quantile("Half of them", latencyOf, .5), quantile("99 %", latencyOf, .99))
}

func (o overview) failures() page.Chart {
	return o.chart("Failed requests", o.unit(), "How many requests could not be answered (status 5xx).", number("Failed", func(p activity.Point) int64 { return p.Failures }))
}

func (o overview) limits() page.Chart {
	return o.chart("Limits", o.unit(), "How many requests were refused as too many, and how many accounts were locked.",
		number("Refused as too many", func(p activity.Point) int64 { return p.LimitsHit }), number("Accounts locked", func(p activity.Point) int64 { return p.Lockouts }))
}

// share writes how many of all were something, for the note under a figure.
func share(v *page.Visit, part, whole int64, what string) string {
	if part == 0 {
		return "none " + what
	}
	return fmt.Sprintf("%s %s (%s %%)", v.Number(int(part)), what, v.Decimal(float64(part)*100/float64(max(whole, 1))))
}

// figure writes a number, or a dash if it is not known.
func figure(v *page.Visit, p activity.Point, n int64) string {
	if !p.Known {
		return "–"
	}
	return v.Number(int(n))
}

func within(d activity.Distribution) string {
	if d.Count() == 0 {
		return "–"
	}
	return lasting(d.Quantile(.99))
}

func halfWithin(d activity.Distribution, none string) string {
	if d.Count() == 0 {
		return none
	}
	return "99 %; half within " + lasting(d.Quantile(.5))
}

// example is how an application signs a user in.
func example(origin string) string {
	return strings.Join([]string{
		"curl " + origin + "/api/login \\",
		`  --json '{"username": "alice", "password": "…"}'`,
	}, "\n")
}
