package revocation

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// Why says each thing that revokes a token, and something exactly if the token is revoked.
func TestWhy(t *testing.T) {
	t0 := time.Unix(1_700_000_000, 0)
	rapid.Check(t, func(t *rapid.T) {
		v := new(View)
		tok := &accesstoken.Token{KeyID: "k", Subject: "u", SessionID: rapid.SampledFrom([]string{"", "s"}).Draw(t, "sid"), ID: "j", Epoch: 5, IssuedAt: t0}
		var want Why
		for seq := range int64(rapid.IntRange(0, 4).Draw(t, "entries")) {
			name := rapid.SampledFrom([]string{"k", "u", "s", "j"}).Draw(t, "name")
			line := store.Revocation{Seq: seq + 1, Subject: name, ExpiresAt: t0.Add(time.Hour)}
			switch kind := rapid.SampledFrom([]revoked.Kind{revoked.Key, revoked.User, revoked.Session, revoked.Token}).Draw(t, "kind"); kind {
			case revoked.User:
				line.Kind, line.Epoch, line.IssuedBefore = string(kind), rapid.Int64Range(1, 9).Draw(t, "epoch"), t0.Add(time.Duration(rapid.IntRange(-2, 2).Draw(t, "before"))*time.Second)
				want.Epoch = want.Epoch || name == "u" && line.Epoch > 5
				want.Time = want.Time || name == "u" && line.IssuedBefore.After(t0)
			default:
				line.Kind = string(kind)
				want.Key = want.Key || kind == revoked.Key && name == "k"
				want.Session = want.Session || kind == revoked.Session && name == "s" && tok.SessionID != ""
				want.Token = want.Token || kind == revoked.Token && name == "j"
			}
			if err := v.list.Apply(entryOf(line)); err != nil {
				t.Fatal(err)
			}
		}
		got := v.Why(tok)
		if _, is := v.list.Revoked(tok); got != want || got.Any() != is {
			t.Errorf("%+v, want %+v; it is revoked: %v", got, want, is)
		}
	})
}
