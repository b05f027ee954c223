// Server is resource servers for tests, by package verify: one for each issuer that is named.
// What each answers stands in package servers.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// checkEvery is how often /refused checks its token.
const checkEvery = 5 * time.Millisecond

func main() {
	var issuers []string
	flag.Func("issuer", "public `URL` of Watchword; several make as many resource servers", func(url string) error {
		issuers = append(issuers, url)
		return nil
	})
	audience := flag.String("audience", "", "the tokens' aud; by default the issuer")
	maxStaleness := flag.Float64("max-staleness", verify.DefaultMaxStaleness.Seconds(), "in seconds")
	listen := flag.String("listen", "127.0.0.1:0", "where each listens")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	for _, issuer := range issuers {
		cfg := verify.Config{Issuer: issuer, MaxStaleness: time.Duration(*maxStaleness * float64(time.Second))}
		if *audience != "" {
			cfg.Audience = []string{*audience}
		}
		verifier, err := verify.New(cfg)
		if err != nil {
			log.Fatal(err)
		}
		defer verifier.Close()
		listener, err := net.Listen("tcp", *listen)
		if err != nil {
			log.Fatal(err)
		}
		server := &http.Server{Handler: routes(verifier), ReadHeaderTimeout: time.Minute}
		defer server.Close()
		go func() { _ = server.Serve(listener) }() // until it is closed
		fmt.Println("listening on", listener.Addr())
	}
	<-ctx.Done()
}

func routes(v *verify.Verifier) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /any", v.Require(http.HandlerFunc(claims)))
	mux.Handle("GET /ship", v.Require(http.HandlerFunc(claims), verify.Claim("ship", "acc")))
	mux.Handle("GET /open", v.Require(http.HandlerFunc(claims), verify.FailOpen))
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		s := v.Status()
		var age *int64
		if !s.Confirmed.IsZero() {
			age = new(time.Since(s.Confirmed).Milliseconds())
		}
		answer(w, map[string]any{"keys": s.Keys, "revocations": s.Revocations, "confirmed_age_ms": age, "fresh": s.Fresh})
	})
	mux.HandleFunc("POST /tokens", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the test has gone
		}
		codes := []string{}
		for token := range strings.FieldsSeq(string(body)) {
			codes = append(codes, code(v.Verify(r.Context(), token)))
		}
		answer(w, codes)
	})
	mux.HandleFunc("GET /refused", func(w http.ResponseWriter, r *http.Request) {
		token, err := verify.Bearer(r.Header["Authorization"])
		if err != nil {
			answer(w, code(nil, err))
			return
		}
		tick := time.NewTicker(checkEvery)
		defer tick.Stop()
		for {
			if c := code(v.Verify(r.Context(), token)); c != "" && c != verify.ErrStale.Code {
				answer(w, c)
				return
			}
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
	})
	return mux
}

func claims(w http.ResponseWriter, r *http.Request) {
	token, _ := verify.FromContext(r.Context())
	answer(w, token.Claims())
}

// code is that of a refused token, or empty.
func code(_ *accesstoken.Token, err error) string {
	if e := (*accesstoken.Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // an error means that the test has gone
}
