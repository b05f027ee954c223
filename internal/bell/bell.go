package bell

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
)

// News is what has changed.
type News string

// What may have changed.
const (
	Registry    News = store.BellRegistry    // replicas and their keys
	Revocations News = store.BellRevocations // the log of what was revoked
)

// RedisChannel is the channel in Redis, or what its name begins with: the id of the
// installation follows after a colon.
const RedisChannel = "watchword:bell"

const (
	// gap is the least time between two rings that are passed on, so that a flood of rings
	// does not keep a replica busy.
	gap = 10 * time.Millisecond
	// retry is the pause after a connection was lost. retryUnfit is the pause if the
	// connection passes no notifications on.
	retry      = time.Second
	retryUnfit = time.Minute
	// publishTimeout bounds ringing in Redis.
	publishTimeout = 2 * time.Second
)

// Config has the databases through which a Bell rings and listens.
type Config struct {
	DB *sqldb.DB // nil: none
	// Redis returns the connected client; nil: there is no Redis.
	Redis func(ctx context.Context) (rueidis.Client, error)
	// Installation is in the name of the channel in Redis; "": it is not.
	Installation string
	Logger       *slog.Logger
	Registerer   prometheus.Registerer
}

func (c *Config) channel() string {
	if c.Installation == "" {
		return RedisChannel
	}
	return RedisChannel + ":" + c.Installation
}

// A Bell rings at the other replicas, and hears their rings. Its methods may be called by
// any number of goroutines.
type Bell struct {
	cfg   Config
	heard map[News]*listener
	ring  map[News]chan struct{} // holds a ring that is not yet published
	rings *prometheus.CounterVec
}

// A listener calls a function when a ring is heard, at most once in a gap.
type listener struct {
	rung chan struct{}
	call func()
}

// New makes a bell. When it hears a ring, it calls the function of that news, in a goroutine
// of Run.
func New(cfg Config, heard map[News]func()) (*Bell, error) {
	b := &Bell{cfg: cfg, heard: map[News]*listener{}, ring: map[News]chan struct{}{}}
	b.rings = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "watchword_bell_rings_total",
		Help: "Rings that were heard from replicas, this one included, by the line on which they came.",
	}, []string{"line", "news"})
	for news, call := range heard {
		b.heard[news] = &listener{make(chan struct{}, 1), call}
		b.ring[news] = make(chan struct{}, 1)
	}
	if err := cfg.Registerer.Register(b.rings); err != nil {
		return nil, fmt.Errorf("bell: %w", err)
	}
	return b, nil
}

// Ring wakes the other replicas after a change was committed. It never blocks. It does
// nothing if the database rings by itself.
func (b *Bell) Ring(news News) { put(b.ring[news]) }

// put puts a ring into the channel. One that is there already stands for both, since it is
// yet to be heard.
func put(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run listens until ctx ends.
func (b *Bell) Run(ctx context.Context) {
	var loops sync.WaitGroup
	defer loops.Wait()
	for _, l := range b.heard {
		loops.Go(func() { every(ctx, l.rung, l.call) })
	}
	if b.cfg.DB != nil && b.cfg.DB.Dialect() == sqldb.Postgres {
		loops.Go(func() { b.keep(ctx, "postgres", b.listenPostgres) })
	}
	if b.cfg.Redis != nil {
		loops.Go(func() { b.keep(ctx, "redis", b.listenRedis) })
		for news, rung := range b.ring {
			loops.Go(func() { every(ctx, rung, func() { b.publish(ctx, news) }) })
		}
	}
}

// every calls a function for the rings in a channel, at most once in a gap.
func every(ctx context.Context, rung <-chan struct{}, call func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-rung:
		}
		call()
		if !pause(ctx, gap) {
			return
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// keep listens on a line, and begins again when the line is lost.
func (b *Bell) keep(ctx context.Context, line string, listen func(ctx context.Context, ready func()) error) {
	silent := false
	ready := func() {
		if silent {
			b.cfg.Logger.InfoContext(ctx, "news comes at once again", "line", line)
		}
		silent = false
		for _, l := range b.heard { // rings may have been missed
			put(l.rung)
		}
	}
	for {
		err := listen(ctx, ready)
		if ctx.Err() != nil {
			return
		}
		wait := retry
		if errors.Is(err, sqldb.ErrNoNotifications) {
			wait = retryUnfit
		}
		if !silent {
			b.cfg.Logger.WarnContext(ctx, "news of other replicas comes by polling, not at once", "line", line, "err", err)
		}
		silent = true
		if !pause(ctx, wait) {
			return
		}
	}
}

// hear passes a ring on. It ignores unknown news.
func (b *Bell) hear(line, what string) {
	if l := b.heard[News(what)]; l != nil {
		b.rings.WithLabelValues(line, what).Inc()
		put(l.rung)
	}
}

func (b *Bell) listenPostgres(ctx context.Context, ready func()) error {
	return b.cfg.DB.Listen(ctx, store.BellChannel, ready, func(payload string) { b.hear("postgres", payload) })
}

func (b *Bell) listenRedis(ctx context.Context, ready func()) error {
	client, err := b.cfg.Redis(ctx)
	if err != nil {
		return err
	}
	own, release := client.Dedicate()
	defer release()
	// Hooks, unlike Receive, are called when the subscription has begun.
	lost := own.SetPubSubHooks(rueidis.PubSubHooks{
		OnMessage: func(m rueidis.PubSubMessage) { b.hear("redis", m.Message) },
		OnSubscription: func(s rueidis.PubSubSubscription) {
			if s.Kind == "subscribe" {
				ready()
			}
		},
	})
	if err := own.Do(ctx, own.B().Subscribe().Channel(b.cfg.channel()).Build()).Error(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-lost:
		if err == nil {
			err = errors.New("the subscription ended")
		}
		return err
	}
}

// publish rings in Redis. If the ring is lost, the listeners notice the change at their next
// poll.
func (b *Bell) publish(ctx context.Context, news News) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	client, err := b.cfg.Redis(ctx)
	if err == nil {
		err = client.Do(ctx, client.B().Publish().Channel(b.cfg.channel()).Message(string(news)).Build()).Error()
	}
	if err != nil && ctx.Err() == nil {
		b.cfg.Logger.DebugContext(ctx, "a ring was lost", "line", "redis", "news", news, "err", err)
	}
}
