package revocation

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// Peers are the other replicas. A replica that is cut off from the database asks them.
type Peers interface {
	// Revocations asks all of them for the part of a log after a number. It calls take,
	// from any goroutine, with each answer that is certainly a replica's and was made after
	// the call. It returns when all have answered, or when ctx ends.
	Revocations(ctx context.Context, log string, after int64, take func(revoked.Page))
}

// noPeers are the peers of a replica that is alone.
type noPeers struct{}

func (noPeers) Revocations(context.Context, string, int64, func(revoked.Page)) {}

// Follow has the view ask peers when it cannot read the log. It is called before Run.
func (v *View) Follow(p Peers) { v.peers = p }

// learnTimeout bounds Learn, for which only a starting replica waits.
const learnTimeout = 10 * time.Second

// Learn asks the peers for all that they know to be revoked. A replica calls it before it reads
// the log for the first time. What a live replica has read stays revoked here, too, if
// somebody has deleted or changed it in the database since, or has replaced the log. If the log
// has not come as far as the peers, or is not theirs, that shows when it is read.
func (v *View) Learn(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, learnTimeout)
	defer cancel()
	// The former logs come first, because the list adds them fast before it has others. They
	// come again, for a peer whose log is replaced between the questions.
	for _, log := range []string{revoked.Former, "", revoked.Former} {
		v.learnLog(ctx, log)
	}
	if ctx.Err() != nil {
		v.cfg.Logger.Warn("the other replicas have not said in time all that is revoked; going on with what the log has", "waited", learnTimeout)
	}
}

// learnLog asks for the peers' present log, or for their former ones.
func (v *View) learnLog(ctx context.Context, log string) {
	for after, more := int64(0), true; more && ctx.Err() == nil; {
		var mu sync.Mutex // guards what follows
		next := int64(math.MaxInt64)
		v.peers.Revocations(ctx, log, after, func(p revoked.Page) {
			mu.Lock()
			defer mu.Unlock()
			if (p.Log == revoked.Former) != (log == revoked.Former) {
				return // a replica of an earlier version answers with its present log
			}
			if err := v.learn(p); err != nil {
				v.cfg.Logger.Error("the revocations that another replica answers cannot be read", "err", err)
			} else if p.More {
				next = min(next, p.Next())
			}
		})
		more, after = next < math.MaxInt64, next
	}
}

// learn adds a page of a log that this replica has not read yet.
func (v *View) learn(p revoked.Page) error {
	if err := revoked.CheckVersion(p.Version); err != nil {
		return err
	}
	v.reading.Lock()
	defer v.reading.Unlock()
	if v.log != "" {
		return errors.New("revocation: the log was read already")
	}
	if p.Log == revoked.Former {
		if err := v.list.ApplyFormer(p.Entries...); err != nil {
			return err
		}
		v.noteKeys(p.Entries)
		if len(p.Entries) > 0 {
			v.replaced.Store(true)
		}
		return nil
	}
	if err := v.applyEntries(p.Entries); err != nil {
		return err
	}
	if v.learned == "" {
		v.learned = p.Log
	}
	if v.learned == p.Log {
		v.heard = max(v.heard, p.Next())
	}
	return nil
}

// follow asks the peers while the database does not answer. An answer is as old as the
// peer's own knowledge: as of when the peer read the log, or as of what it heard from
// another replica. So replicas that are all cut off do not keep each other fresh.
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

// askPeers takes in what the peers know, page by page.
func (v *View) askPeers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, v.cfg.MaxStaleness/4)
	defer cancel()
	for {
		asked := v.cfg.Now()
		log, after := v.position()
		v.peers.Revocations(ctx, log, after, func(p revoked.Page) {
			if err := v.takePage(log, p, asked); err != nil {
				v.cfg.Logger.Error("the revocations that another replica answers cannot be read", "err", err)
			}
		})
		if _, now := v.position(); now == after || ctx.Err() != nil {
			return // there is no more
		}
	}
}

// position returns the log, and the number up to which its entries are known: from the
// database or from peers.
func (v *View) position() (log string, after int64) {
	v.reading.Lock()
	defer v.reading.Unlock()
	return v.log, max(v.read, v.heard)
}

// takePage adds a peer's page, for which the peer was asked at that time.
func (v *View) takePage(log string, p revoked.Page, asked time.Time) error {
	if err := revoked.CheckVersion(p.Version); err != nil {
		return err
	}
	v.reading.Lock()
	defer v.reading.Unlock()
	was := v.confirmed.Load()
	// That the log is another one is believed of the database alone.
	if p.Log != log || p.Log != v.log || p.Snapshot || p.Age < 0 || p.Head < was.head.Seq {
		return nil
	}
	if err := v.applyEntries(p.Entries); err != nil {
		return err
	}
	v.heard = max(v.heard, p.Next())
	asOf := asked.Add(-revoked.Milliseconds(p.Age))
	if !p.More && asOf.After(was.asOf) {
		v.confirmLocked(confirmation{store.LogHead{ID: p.Log, Seq: p.Head}, asOf, was.round})
	}
	return nil
}
