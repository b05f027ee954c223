package activity

import (
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// Bounds are the upper bounds of a Distribution's counts but the last, which has none.
var Bounds = [...]time.Duration{
	100 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 500 * time.Millisecond, time.Second, 5 * time.Second,
}

const buckets = len(Bounds) + 1

// aside are the routes whose requests are not counted: probes, the metrics themselves, and the feed
// of revocations, whose streams last for hours and whose pages are held back.
var aside = []string{"GET /livez", "GET /readyz", "GET /health", "GET /metrics", "GET /api/revocations"}

// sums are the figures since the process began, by column.
type sums [columns]float64

// A sampler turns metrics, which only grow, into what has happened since the last sample.
type sampler struct{ before sums }

// since returns the difference to the last sample. The first one has all since the process began.
func (s *sampler) since(families []*dto.MetricFamily) (f figures) {
	now := sum(families)
	for i, n := range now {
		d := n - s.before[i]
		if d < 0 { // it was set back, and counts from zero
			d = n
		}
		f[i] = uint32(min(max(d, 0), maxFigure))
	}
	s.before = now
	return f
}

// sum adds up the metrics.
func sum(families []*dto.MetricFamily) (s sums) {
	for _, family := range families {
		for _, m := range family.GetMetric() {
			label := func(name string) string {
				for _, l := range m.GetLabel() {
					if l.GetName() == name {
						return l.GetValue()
					}
				}
				return ""
			}
			count := func(column int) { s[column] += m.GetCounter().GetValue() }
			switch family.GetName() {
			case "watchword_requests_total":
				if column, ok := columnOf(label("use"), label("outcome")); ok {
					count(column)
				}
			case "watchword_sessions_begun_total":
				count(sessionsBegun)
			case "watchword_sessions_ended_together_total":
				count(sessionsEnded)
			case "watchword_revocations_total":
				if label("reason") == "canary" {
					continue
				}
				count(revocations)
				if label("kind") == "sid" { // each session that ends by itself is revoked by its id
					count(sessionsEnded)
				}
			case "watchword_limit_refusals_total", "watchword_http_requests_over_budget_total":
				count(limitsHit)
			case "watchword_limit_lockouts_total":
				count(lockouts)
			case "watchword_http_requests_total":
				if slices.Contains(aside, label("route")) {
					continue
				}
				count(requests)
				if strings.HasPrefix(label("status"), "5") {
					count(failures)
				}
			case "watchword_http_request_duration_seconds":
				if !slices.Contains(aside, label("route")) {
					s.distribute(latency, m.GetHistogram())
				}
			case "watchword_revocation_known_seconds":
				s.distribute(propagation, m.GetHistogram())
			}
		}
	}
	return s
}

// columnOf returns the column of a use case (login.Service) that ended in some way.
func columnOf(use, outcome string) (column int, ok bool) {
	switch use {
	case "login", "login_complete", "login_passkey":
		column = signIns
	case "renew":
		column = renewals
	case "verify":
		column = verifications
	default:
		return 0, false
	}
	switch outcome {
	case "ok":
		return column, true
	case "challenge": // the login goes on
		return 0, false
	}
	return column + 1, true // the refused ones
}

// distribute adds a histogram to the columns from first on.
func (s *sums) distribute(first int, h *dto.Histogram) {
	below := 0.0
	for _, b := range h.GetBucket() {
		n := float64(b.GetCumulativeCount())
		bound := time.Duration(b.GetUpperBound() * float64(time.Second))
		i, _ := slices.BinarySearch(Bounds[:], bound.Round(time.Microsecond))
		s[first+i] += n - below
		below = n
	}
	s[first+len(Bounds)] += float64(h.GetSampleCount()) - below
}
