package revocation

import (
	"context"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// Peers are the other replicas, as a replica asks them that is cut off from the
// database.
type Peers interface {
	// Revocations asks all of them for the part of a log after a number and calls
	// take, from any goroutine, with each answer that is certainly a replica's and
	// was made after the call. It returns when all have answered, or with ctx.
	Revocations(ctx context.Context, log string, after int64, take func(revoked.Page))
}

// noPeers are the peers of a replica that is alone.
type noPeers struct{}

func (noPeers) Revocations(context.Context, string, int64, func(revoked.Page)) {}

// Follow has the view ask peers when it cannot read the log. To be called before
// Run.
func (v *View) Follow(p Peers) { v.peers = p }

// follow asks the peers while the log does not answer. What they say is true as of
// when they read it, or heard it from another, so that a circle of replicas that
// are all cut off makes nothing true for longer.
func (v *View) follow(ctx context.Context) {
	poll := time.NewTicker(v.cfg.Poll)
	defer poll.Stop()
	following := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
		before := v.confirmed.Load()
		if before == nil || revoked.Age(before.asOf, v.cfg.Now()) <= v.cfg.Poll*3/2 {
			continue
		}
		v.askPeers(ctx)
		after := v.confirmed.Load()
		heard := after.round == before.round && after.asOf.After(before.asOf)
		if heard && !following {
			v.cfg.Logger.Warn("the revocation log comes from other replicas, because the database does not answer")
		}
		following = heard
	}
}

// askPeers takes in what the peers know.
func (v *View) askPeers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, v.cfg.MaxStaleness/4)
	defer cancel()
	for {
		asked := v.cfg.Now()
		log, after := v.told()
		v.peers.Revocations(ctx, log, after, func(p revoked.Page) {
			if err := v.takePage(log, p, asked); err != nil {
				v.cfg.Logger.Error("what another replica says was taken back cannot be read", "err", err)
			}
		})
		if _, now := v.told(); now == after || ctx.Err() != nil {
			return // there is no more
		}
	}
}

// told is up to where in which log everything has been read or heard.
func (v *View) told() (log string, after int64) {
	v.reading.Lock()
	defer v.reading.Unlock()
	return v.log, max(v.read, v.heard)
}

// takePage adds a peer's page, which was asked for at a time.
func (v *View) takePage(log string, p revoked.Page, asked time.Time) error {
	v.reading.Lock()
	defer v.reading.Unlock()
	was := v.confirmed.Load()
	// Only the database may say that the log is another one.
	if p.Log != log || p.Log != v.log || p.Snapshot || p.Age < 0 || p.Head < was.head.Seq {
		return nil
	}
	if err := v.list.Apply(p.Entries...); err != nil {
		return err
	}
	v.heard = max(v.heard, p.Next())
	asOf := asked.Add(-time.Duration(p.Age) * time.Millisecond)
	if !p.More && asOf.After(was.asOf) {
		v.confirm(confirmation{store.LogHead{ID: p.Log, Seq: p.Head}, asOf, was.round})
	}
	return nil
}
