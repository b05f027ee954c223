package app

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/secretfile"
	"github.com/watchword-auth/watchword/internal/web/account"
	"github.com/watchword-auth/watchword/internal/web/admin"
	"github.com/watchword-auth/watchword/internal/web/page"
	"github.com/watchword-auth/watchword/internal/web/signin"
)

// pages are those that people see. Nothing of them lives in this replica: the shared state has
// the sessions, and a browser what is between two pages.
func (n *Node) pages(background context.Context, o Options, service *login.Service, proxies httpkit.Proxies, budget *httpkit.Budget) (*pages, error) {
	cfg := o.Config
	brand, err := brandOf(cfg.Pages)
	if err != nil {
		return nil, err
	}
	kit, err := page.New(page.Config{
		Login: service, Limits: n.parts.Limits, Budget: budget, Proxies: proxies, Brand: brand,
		PublicURL: cfg.Server.PublicURL, Now: o.Now, Logger: o.Logger, Version: o.Version,
	})
	if err != nil {
		return nil, err
	}
	party, _ := cfg.RelyingParty()
	signin.Mount(kit, signin.Config{
		Login: service, Factors: n.parts.Factors, Directory: n.parts.Directory, RememberDevice: cfg.MFA.RememberDevice, Passkeys: party != "",
	})
	account.Mount(kit, account.Config{Login: service, Factors: n.parts.Factors, Directory: n.parts.Directory, Passkeys: party != ""})
	admin.Mount(kit, admin.Config{
		Login: service, Factors: n.parts.Factors, Directory: n.parts.Directory, Limits: n.parts.LimitAdministration(),
		Cluster: cluster.Admin{
			Cluster: n.cluster, Rights: n.parts.Directory,
			Own: &cluster.Own{Local: n.keys, Store: n.store, Secrets: n.keys.kids, Now: o.Now},
		},
		Activity: n.activity, Checks: n.checks, Doctor: pagesDoctor{n.doctor}, Ready: n.Ready, Instance: n.instance, Version: o.Version, Now: o.Now,
		Bound:      admin.Bound{Poll: cfg.Revocation.Poll, Most: cfg.Revocation.MaxStaleness, Allow: cfg.Revocation.OnOutage.Allow},
		Background: func(run func(context.Context)) { n.loop(background, run) },
	})
	n.kit = kit
	return &pages{kit}, nil
}

type pages struct{ kit *page.Kit }

// Mount adds the pages, and a way to them from the root.
func (p *pages) Mount(mux *http.ServeMux) {
	p.kit.Mount(mux)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "/account")
		w.WriteHeader(http.StatusSeeOther)
	})
}

// checks asks the backends how they are.
func (n *Node) checks(ctx context.Context) []admin.Check {
	var list []admin.Check
	for name, b := range n.health.Report(ctx).Backends {
		list = append(list, admin.Check{Name: name, OK: b.Status == "ok", Latency: time.Duration(b.LatencyMS * float64(time.Millisecond)), Reason: b.Reason})
	}
	slices.SortFunc(list, func(a, b admin.Check) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// CheckPages returns an error if pages cannot look as the settings say: if the logo is no picture
// or cannot be read, or text of the accent color could not be.
func CheckPages(p config.Pages) error {
	if !p.Enabled {
		return nil
	}
	_, err := brandOf(p)
	return err
}

// brandOf is how the pages look.
func brandOf(p config.Pages) (page.Brand, error) {
	b := page.Brand{Name: p.Name}
	var err error
	if b.Accent, err = page.ParseColor(p.Accent); err != nil {
		return b, fmt.Errorf("pages.accent: %w", err)
	}
	if b.Header, err = page.ParseColor(p.Header); err != nil {
		return b, fmt.Errorf("pages.header: %w", err)
	}
	if p.LogoFile != "" {
		if b.Logo, _, err = (secretfile.Rules{Max: page.MaxLogo}).Read(p.LogoFile); err != nil {
			return b, fmt.Errorf("pages.logo_file: %w", err)
		}
	}
	if err := b.Check(); err != nil {
		return b, fmt.Errorf("pages: %w", err)
	}
	return b, nil
}
