package app

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

var errStarting = problem.New(problem.Unavailable, "starting", "this server is starting").After(time.Second)

// A replica may start before its backends, as when a whole cluster is switched on or the
// database fails over. It tries again every startAgain, for startPatience in all. Then New
// returns the reason. The reason is logged at once and then every startSays attempts, since
// it may have become another one.
const (
	startPatience = 5 * time.Minute
	startAgain    = time.Second
	startSays     = 15
)

// A startup waits for the database, Redis and the keeper of the signing keys. One deadline holds for all
// steps of the start.
type startup struct {
	logger *slog.Logger
	giveUp time.Time // by the machine's clock
}

func newStartup(logger *slog.Logger) *startup {
	return &startup{logger: logger, giveUp: time.Now().Add(startPatience)}
}

// await runs one step of a start, and again while what it needs is busy or away. A
// step that failed may have been done all the same, so each step can be done twice.
func (s *startup) await(ctx context.Context, step string, do func(ctx context.Context) error) error {
	for attempt := 1; ; attempt++ {
		err := do(ctx)
		if !away(err) || ctx.Err() != nil || time.Now().After(s.giveUp) {
			return err
		}
		if attempt%startSays == 1 {
			s.logger.Warn("this server cannot start yet; trying again", "step", step, "err", err)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(startAgain):
		}
	}
}

// away reports whether the step may succeed a little later, because a backend is busy or
// away. After such an error it is unknown whether a commit has been done.
func away(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, sqldb.ErrBusy) || errors.Is(err, store.ErrBusy) || errors.Is(err, state.ErrUnavailable) ||
		errors.Is(err, keysource.ErrKeeperAway)
}

// startingHandler answers until the replica can. A replica that takes the place of one that
// died waits for seconds, and no request may hang meanwhile, least of all a load balancer's.
// Pages of the origins are shown its answers as those that follow.
func startingHandler(origins []string) http.Handler {
	probes := (&httpapi.Health{Ready: func() error { return errStarting }}).Probes()
	return httpapi.CORS(origins).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/livez", "/readyz":
			probes.ServeHTTP(w, r)
		default:
			httpkit.WriteProblem(w, errStarting)
		}
	}))
}
