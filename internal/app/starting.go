package app

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

var errStarting = problem.New(problem.Unavailable, "starting", "this server is starting").After(time.Second)

// A node that starts before what it needs, as when a whole cluster is switched on, tries
// again for startPatience. Then it ends with the reason, for whoever looks after it.
const (
	startPatience = time.Minute
	startAgain    = time.Second
)

// start is New, tried again while the database or Redis is busy or away.
func start(ctx context.Context, o Options) (*Node, error) {
	giveUp := time.Now().Add(startPatience)
	for {
		n, err := New(ctx, o)
		if !away(err) || ctx.Err() != nil || time.Now().After(giveUp) {
			return n, err
		}
		o.Logger.Warn("this server cannot start yet; trying again", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(startAgain):
		}
	}
}

// away says whether something that a node needs may be there a little later. Of a commit
// that took too long nobody knows what became of it; a start begins anew in any case.
func away(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, sqldb.ErrBusy) || errors.Is(err, store.ErrBusy) || errors.Is(err, state.ErrUnavailable)
}

// A front has requests answered by the node, and says until there is one that it
// is not ready. A replica that takes the place of one that died waits for seconds,
// and whoever asks it meanwhile, a load balancer above all, must not hang.
type front struct {
	node     atomic.Pointer[http.Handler]
	starting *http.ServeMux
	draining atomic.Bool
}

func newFront() *front {
	f := &front{starting: http.NewServeMux()}
	(&httpapi.Health{Ready: func() error { return errStarting }}).Mount(f.starting)
	return f
}

// open lets requests through to the node.
func (f *front) open(node http.Handler) { f.node.Store(&node) }

// drain makes every further answer end its connection, so that the next request
// comes by a new one, to another replica if there is a load balancer. In HTTP/2 that
// is a GOAWAY, which says which requests are still answered.
func (f *front) drain() { f.draining.Store(true) }

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	node := f.node.Load()
	switch {
	case node != nil:
		(*node).ServeHTTP(w, r)
	case r.URL.Path == "/livez" || r.URL.Path == "/readyz":
		f.starting.ServeHTTP(w, r)
	default:
		httpapi.WriteProblem(w, r, errStarting)
	}
}
