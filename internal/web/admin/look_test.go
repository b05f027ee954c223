package admin

import (
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/test/browser"
)

// busy has three replicas serve many, for so long.
func (s *scene) busy(d time.Duration) {
	replicas := []*actor{s.replica("auth-0"), s.replica("auth-1"), s.replica("auth-2")}
	for i := 0; time.Duration(i)*10*time.Second < d; i++ {
		wave := 1 + .5*math.Sin(float64(i)/25) + .12*math.Sin(float64(i)*1.7)
		for j, a := range replicas {
			more := wave * (1 + .1*float64(j))
			a.signs(math.Round(40*more), math.Round(3*more+float64(i*7%5)))
			a.uses.WithLabelValues("renew", "ok").Add(math.Round(28 * more))
			a.uses.WithLabelValues("verify", "ok").Add(math.Round(310 * more))
			a.uses.WithLabelValues("verify", "revoked").Add(math.Round(4 * more))
			a.answers(int(60*more), 0, time.Duration(700+i*37%400)*time.Microsecond)
			a.answers(3, 0, time.Duration(30+i*13%40)*time.Millisecond)
			if i*i%7 == j {
				a.revokes(1+i*i%11, time.Duration(3+i%5)*time.Millisecond)
				a.revokes(1, time.Duration(8+i%30)*time.Millisecond)
			}
			if i%40 == 20 {
				a.limits.WithLabelValues().Add(3)
			}
		}
		s.pass(10 * time.Second)
	}
}

// trio is a cluster of three replicas that are well.
func trio(now time.Time) *cluster.View {
	v := &cluster.View{Instance: "auth-0", Status: cluster.Status{Version: 7, AsOf: now}}
	for i, name := range []string{"auth-0", "auth-1", "auth-2"} {
		r := cluster.ReplicaStatus{Standing: cluster.Live, Clock: time.Duration(2+i) * time.Millisecond, Replica: store.Replica{
			Instance: name, URL: "http://10.0.0.1" + string(rune('1'+i)) + ":8080", Version: "1.2.3", Config: "5d8e0f3a1c2b4d6e", StartedAt: now.Add(-time.Duration(50+i) * time.Hour), BeatAt: now.Add(-time.Second), ClockAt: now,
		}}
		born := now.Add(-time.Duration(9+5*i) * time.Hour)
		for j := range 2 {
			created := born.Add(time.Duration(j) * 20 * time.Hour)
			k := store.Key{
				ID: name + "-" + strings.Repeat(string("NqWkLd"[2*i+j])+"bLsXh8", 7)[:43], Instance: name, Algorithm: "EdDSA",
				CreatedAt: created, ActivateAt: created.Add(4 * time.Hour), RetireAt: created.Add(24 * time.Hour), RemoveAt: created.Add(25 * time.Hour),
			}
			if phase := keyring.State(k, now); phase != keyring.Removed && phase != keyring.Pending {
				r.Keys = append(r.Keys, cluster.KeyStatus{Key: k, Phase: phase})
			}
		}
		v.Replicas = append(v.Replicas, r)
	}
	return v
}

// open opens a browser as the one who has the cookie.
func (s *scene) open() *browser.Browser {
	b := browser.New(s.t)
	b.PutCookie(s.browserCookie())
	return b
}

func (s *scene) browserCookie() *network.Cookie {
	return &network.Cookie{Name: "watchword", Value: s.cookie, Domain: "127.0.0.1", Path: "/", HTTPOnly: true}
}

func TestLooks(t *testing.T) {
	s := newScene(t)
	span := 10 * time.Minute
	pictures := os.Getenv(browser.PicturesTo) != ""
	if pictures {
		span = time.Hour
	}
	s.later = -span - time.Minute // so that it ends now
	s.busy(span)
	b := s.open()
	look := func(name, path string) {
		t.Helper()
		b.Open(s.URL + path)
		if problems := b.Problems(); len(problems) > 0 {
			t.Errorf("%s: %v", name, problems)
		}
		browser.Axe(t, b)
		if pictures {
			b.Pictures(name)
		}
		b.View(browser.Phone)
		b.Fits()
		b.View(browser.Desktop)
	}
	look("admin-overview", "/admin")
	s.viewer.view = trio(time.Now())
	look("admin-cluster", "/admin/cluster")

	sick := trio(time.Now())
	sick.Replicas[1].Unseen = []string{sick.Replicas[0].Keys[0].ID}
	sick.Replicas[1].Config, sick.Replicas[1].Version = "0011223344556677", "1.2.2"
	sick.Replicas[2].Standing, sick.Replicas[2].BeatAt = cluster.Silent, sick.AsOf.Add(-23*time.Second)
	sick.Replicas[0].Clock = 1300 * time.Millisecond
	s.viewer.view = sick
	s.replica("auth-0").answers(400, 40, 2*time.Second)
	s.pass(40*time.Second, "auth-2")
	look("admin-cluster-sick", "/admin/cluster")
	look("admin-overview-sick", "/admin?span=15m")
	s.viewer.view = nil
	look("admin-alone", "/admin/cluster")
	look("admin-checks", "/admin/checks")
	look("admin-token", "/admin/token")
}
