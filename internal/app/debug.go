package app

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/graceful"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/problem"
)

// levelPath is where the level of the log is read, and written.
const levelPath = "/debug/log-level"

// listenDebug serves what helps to find the cause of a fault, from now on: also while the
// replica starts, and if it never comes to its end.
func listenDebug(address string, level *slog.LevelVar, logger *slog.Logger) (*graceful.Server, error) {
	s, err := graceful.Listen(graceful.Config{Setting: "debug.address", Address: address, Starting: startingHandler(nil), Logger: logger})
	if err == nil {
		s.Open(debugHandler(level, logger))
		logger.Info("profiles and the level of the log are served", "address", s.Addr().String())
	}
	return s, err
}

var (
	errOtherHost = problem.New(problem.Denied, "wrong_host", "this port is for programs of this machine, which name it 127.0.0.1, [::1] or localhost")
	errOtherSite = problem.New(problem.Denied, "other_site", "this port is for programs, and answers no page of another site")
	errNoProfile = problem.New(problem.NotFound, "no_such_profile", "/debug/pprof/ lists the profiles")
	errNoSeconds = problem.New(problem.Invalid, "invalid_seconds", "a recording lasts from 1 to %d seconds", mostSeconds)
	errRecording = problem.New(problem.Conflict, "recording", "something is being recorded already")
	errNoLevel   = problem.New(problem.Invalid, "unknown_level", "send debug, info, warn or error")
)

// debugHandler serves profiles and the level of the log. Nobody logs in there: whoever reaches
// an address of this machine may use it. A page in a browser on this machine may reach it, too,
// by a name of its own that leads here (DNS rebinding), so the name has to be this machine's; and
// what a page sends is refused, since a recording slows the replica down though the page cannot
// read it.
func debugHandler(level *slog.LevelVar, logger *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/{$}", listProfiles)
	mux.HandleFunc("GET /debug/pprof/{name}", writeProfile)
	mux.HandleFunc("GET /debug/pprof/profile", recording(pprof.StartCPUProfile, pprof.StopCPUProfile))
	mux.HandleFunc("GET /debug/pprof/trace", recording(trace.Start, trace.Stop))
	mux.HandleFunc("GET "+levelPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, levelName(level.Level()))
	})
	mux.HandleFunc("PUT "+levelPath, func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(io.LimitReader(r.Body, 16))
		to, ok := levelOf(strings.TrimSpace(string(text)))
		if err != nil || !ok {
			httpkit.WriteProblem(w, errNoLevel.Because(err))
			return
		}
		setLevel(level, to, logger, levelPath)
		w.WriteHeader(http.StatusNoContent)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !namesThisMachine(r.Host):
			httpkit.WriteProblem(w, errOtherHost)
			return
		case fromAPage(r):
			httpkit.WriteProblem(w, errOtherSite)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// The profiles are as of net/http/pprof, so that "go tool pprof" reads them. That package would
// add them to http.DefaultServeMux, too, which a program that embeds a replica may serve to
// everybody.

// listProfiles lists the profiles.
func listProfiles(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for _, p := range pprof.Profiles() {
		fmt.Fprintln(w, p.Name())
	}
	fmt.Fprint(w, "profile?seconds=30\ntrace?seconds=1\n")
}

// writeProfile writes a profile as it is now, with debug=1 as text, and with gc=1 after a
// garbage collection.
func writeProfile(w http.ResponseWriter, r *http.Request) {
	p := pprof.Lookup(r.PathValue("name"))
	if p == nil {
		httpkit.WriteProblem(w, errNoProfile)
		return
	}
	if r.FormValue("gc") == "1" {
		runtime.GC()
	}
	form, _ := strconv.Atoi(r.FormValue("debug")) // 0: as pprof reads it
	kind := "application/octet-stream"
	if form > 0 {
		kind = "text/plain; charset=utf-8"
	}
	w.Header().Set("Content-Type", kind)
	_ = p.WriteTo(w, form) // an error means that the client is gone
}

// mostSeconds bounds how long a recording lasts: a busy replica slows down meanwhile.
const mostSeconds = 300

// recording records for as many seconds as the client says. There is one at a time.
func recording(start func(io.Writer) error, stop func()) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		seconds, err := strconv.Atoi(cmp.Or(r.FormValue("seconds"), "30"))
		if err != nil || seconds < 1 || seconds > mostSeconds {
			httpkit.WriteProblem(w, errNoSeconds)
			return
		}
		wait := time.Duration(seconds) * time.Second
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(wait + time.Minute))
		w.Header().Set("Content-Type", "application/octet-stream")
		if err := start(w); err != nil {
			httpkit.WriteProblem(w, errRecording.Because(err))
			return
		}
		defer stop()
		select {
		case <-time.After(wait):
		case <-r.Context().Done():
		}
	}
}

// namesThisMachine reports whether a Host header names this machine's own address.
func namesThisMachine(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && a.IsLoopback()
}

// fromAPage reports whether a browser says that another site's page sends the request (Fetch
// Metadata). Who types the address into a browser, and programs, do not say so.
func fromAPage(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site != "" && site != "none" && site != "same-origin" || r.Header.Get("Origin") != ""
}

// levelOf returns the level that has the name.
func levelOf(name string) (slog.Level, bool) {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if levelName(l) == name {
			return l, true
		}
	}
	return 0, false
}

func levelName(l slog.Level) string { return strings.ToLower(l.String()) }

// setLevel sets the level of the log, and has the log say so while it still can.
func setLevel(level *slog.LevelVar, to slog.Level, logger *slog.Logger, by string) {
	say := func(from slog.Level) {
		logger.Warn("the level of the log has changed", "old", levelName(from), "new", levelName(to), "by", by)
	}
	from := level.Level()
	if to > from {
		say(from)
	}
	level.Set(to)
	if to <= from {
		say(from)
	}
}
