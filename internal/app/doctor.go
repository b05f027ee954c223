package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/doctor"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/internal/web/admin"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// self is what this replica tells a doctor about itself.
func (n *Node) self(o Options, service *login.Service) (*doctor.Self, error) {
	process, err := token.NewID(rand.Reader)
	if err != nil {
		return nil, err
	}
	hide := func(string, string) string { return "set" } // compared with no other replica's
	if o.Config.Cluster.Enabled {
		digest, err := cluster.SettingDigest(o.Config.Cluster.Secret)
		if err != nil {
			return nil, err
		}
		hide = func(key, text string) string {
			if doctor.MayDiffer(key) { // a PIN has few digits, which the digest would tell to whoever has the cluster's secret
				return "set"
			}
			return digest(key, text)
		}
	}
	return &doctor.Self{
		Instance: n.instance, Process: process, Version: o.Version, DB: n.db, State: n.state, Ready: n.Ready, Now: o.Now,
		Settings: func() map[string]string { return o.Config.Running(n.present()).Texts(hide) },
		Signer: func() (string, error) {
			signer, err := n.keys.Signer()
			if err != nil {
				return "", err
			}
			return signer.KeyID(), nil
		},
		Issue:        func() (text, id string, err error) { return n.issueCanary(o) },
		Revoke:       func(ctx context.Context, id string) error { return n.revokeCanary(ctx, o, id) },
		Accepts:      service.VerifyForPeer,
		Installation: func(ctx context.Context) (string, error) { return operator.Installation(ctx, n.store) },
	}, nil
}

// examined answers doctors.
func (n *Node) examined(self *doctor.Self, proxies httpkit.Proxies) func(*http.Request, string, cluster.ExamineQuestion) (body []byte, instance, mac string, err error) {
	return func(r *http.Request, nonce string, q cluster.ExamineQuestion) (body []byte, instance, mac string, err error) {
		came := doctor.Request{
			Peer: r.RemoteAddr, Client: proxies.Address(r),
			XForwardedFor: r.Header.Values("X-Forwarded-For"), Forwarded: r.Header.Values("Forwarded"),
		}
		return n.cluster.AnswerExamination(r.Context(), nonce, q, func(ctx context.Context, question []byte) ([]byte, error) {
			return self.Answer(ctx, question, came)
		})
	}
}

// openDoctor makes the doctor of this replica. What it looks at is what the replica itself uses.
func (n *Node) openDoctor(o Options, self *doctor.Self, registry *prometheus.Registry) (*doctor.Watch, error) {
	cfg := o.Config
	front, err := operator.DoctorFront(cfg.Cluster.CAFile)
	if err != nil {
		return nil, err
	}
	var asker *cluster.Asker // nil: there are no other replicas
	if cfg.Cluster.Enabled {
		if asker, err = cluster.NewAsker(cfg.Cluster.Secret, n.clients.Get); err != nil {
			return nil, err
		}
	}
	open := func(ctx context.Context, reach doctor.Reach) *doctor.Deployment {
		d := &doctor.Deployment{Config: cfg.Running(n.present()), Reach: reach, DB: n.db, Store: n.store, Front: front, Now: o.Now}
		if cfg.StateBackend() != config.StateMemory {
			d.State = n.state
		}
		if d.DB == nil {
			d.DBErr = doctor.Skip("the program that this replica is in brings its own store")
		}
		if n.state.redis != nil {
			d.Redis, d.RedisErr = n.state.redis.Client(ctx)
		}
		d.Installation, _ = self.Installation(ctx) // that the database does not answer is found otherwise
		if asker == nil {
			return d
		}
		var status cluster.Status
		if status, d.ClusterErr = cluster.ReadStatus(ctx, n.store.(store.Registry), cfg.Cluster.Secret); d.ClusterErr == nil {
			d.Cluster = &status
		}
		if reach == doctor.All {
			d.AskReplicas(ctx, doctor.Round{
				Asker: asker, Places: n.cluster.Others(), Registered: true,
				Self: self, SelfURL: cmp.Or(cfg.Cluster.AdvertiseURL, n.instance),
			})
		}
		return d
	}
	return doctor.NewWatch(doctor.WatchConfig{
		Open: open, Checks: doctor.Checks(), Rights: n.parts.Directory, Now: o.Now, Logger: o.Logger, Registerer: registry,
	})
}

// checked counts the checks that found something when this replica ran them last; nil: it has not.
func (n *Node) checked() *httpapi.CheckCounts {
	last := n.doctor.Last()
	if last == nil {
		return nil
	}
	c := last.Counts()
	return &httpapi.CheckCounts{Errors: c.Errors, Warnings: c.Warnings}
}

// A pagesDoctor is the doctor as pages know it.
type pagesDoctor struct{ *doctor.Watch }

// Own implements admin.Doctor.
func (p pagesDoctor) Own(ctx context.Context, by *accesstoken.Token, address string) (*admin.Examination, error) {
	r, err := p.Watch.Own(ctx, by, address)
	return examination(r), err
}

// Examine implements admin.Doctor.
func (p pagesDoctor) Examine(ctx context.Context, by *accesstoken.Token, address string) (*admin.Examination, error) {
	r, err := p.Watch.Examine(ctx, by, address)
	return examination(r), err
}

func examination(r *doctor.Report) *admin.Examination {
	if r == nil {
		return nil
	}
	e := &admin.Examination{At: r.At, Whole: r.Reach == doctor.All}
	for _, one := range r.Results {
		c := admin.Examined{ID: one.ID, Title: one.Title, Severity: string(one.Severity), Status: string(one.Status), Reason: one.Reason}
		for _, f := range one.Findings {
			c.Findings = append(c.Findings, admin.Finding{Subject: f.Subject, Seen: f.Seen, Mend: f.Mend})
		}
		e.Checks = append(e.Checks, c)
	}
	return e
}
