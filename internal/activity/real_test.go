package activity_test

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/watchword-auth/watchword/internal/activity"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/test/replica"
)

// everybody may see everything.
type everybody struct{}

func (everybody) Administration(context.Context, directory.Actor) (store.User, directory.Rights, error) {
	return store.User{}, directory.Rights{}, nil
}

// A replica has every metric that is sampled, and they say what has happened.
func TestARealReplica(t *testing.T) {
	w := replica.New(t, func(cfg *config.Config) {
		cfg.Limits.Lockout = config.Default().Limits.Lockout
		cfg.Limits.Renew = config.Limit{PerAddress: config.Rate{Count: 5, Per: time.Hour}}
	})
	w.User("ada")
	w.User("bob")

	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	ended, end := context.WithCancel(t.Context())
	end()
	s := activity.New(activity.Config{
		State: memstate.New(time.Now), Instance: "a", Rights: everybody{}, Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler),
		Registerer: prometheus.NewRegistry(),
		Gatherer: prometheus.GathererFunc(func() (list []*dto.MetricFamily, err error) {
			parser := expfmt.NewTextParser(model.UTF8Validation)
			families, err := parser.TextToMetricFamilies(bytes.NewReader(w.Do("GET", "/metrics", "", nil).Body))
			for _, f := range families {
				list = append(list, f)
			}
			return list, err
		}),
	})
	s.Run(ended) // what has happened before

	now = now.Add(20 * time.Minute)
	g := w.Login("ada")
	w.Accepts(g.AccessToken)
	renewed, _ := w.Renew(g.RefreshToken)
	for range 7 {
		w.Renew("nothing")
	}
	w.Login("ada")
	w.Want(w.Do("POST", "/api/logout", renewed.AccessToken, nil), 204, "")
	w.Do("GET", "/api/verify", renewed.AccessToken, nil)
	w.Do("GET", "/livez", "", nil)
	w.Revoke(w.Login("admin").AccessToken, map[string]any{"user": "ada"})
	for range 10 {
		w.Do("POST", "/api/login", "", map[string]string{"username": "bob", "password": "wrong"})
	}
	s.Run(ended)
	now = now.Add(activity.Every)
	o, err := s.Overview(t.Context(), directory.Actor{}, 15*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	p := o.Total.Points[len(o.Total.Points)-1]
	if !p.Known {
		p = o.Total.Points[len(o.Total.Points)-2]
	}
	for what, got := range map[string]bool{
		"sign-ins":              p.SignIns == 3 && p.SignInsRefused == 10,
		"renewals":              p.Renewals == 1 && p.RenewalsRefused == 7,
		"verifications":         p.Verifications >= 1 && p.VerificationsRefused == 1,
		"sessions":              p.SessionsBegun == 3 && p.SessionsEnded == 2,
		"revocations":           p.Revocations == 2,
		"limits":                p.LimitsHit == 3 && p.Lockouts >= 1,
		"requests":              p.Requests == 25 && p.Failures == 0,
		"latency":               p.Latency.Count() == p.Requests && p.Latency.Quantile(.5) > 0,
		"how soon it was known": p.Propagation.Count() == 2 && p.Propagation.Quantile(1) > 0,
	} {
		if !got {
			t.Errorf("not as it was: %s: %+v", what, p)
		}
	}
}
