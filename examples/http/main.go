// Http is a web service that takes Watchword's access tokens. It checks a token without a
// request to Watchword, since it keeps the key set and follows the feed of revocations.
//
// Users with claims, and a token to try it with: examples/README.md.
//
//	go run ./examples/http -issuer http://127.0.0.1:8080
//	curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:9000/hello
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/watchword-auth/watchword/verify"
)

func main() {
	issuer := flag.String("issuer", "http://127.0.0.1:8080", "public URL of Watchword")
	address := flag.String("address", "127.0.0.1:9000", "where to listen")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	if err := serve(ctx, listener, *issuer); err != nil {
		log.Fatal(err)
	}
}

// serve answers until ctx ends.
func serve(ctx context.Context, listener net.Listener, issuer string) error {
	verifier, err := verify.New(verify.Config{Issuer: issuer})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer verifier.Close()

	server := &http.Server{Handler: routes(verifier), ReadHeaderTimeout: 5 * time.Second}
	drained := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		deadline, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		drained <- server.Shutdown(deadline)
	})
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return err
	}
	return <-drained
}

// routes returns the routes with the rights that each needs. A route that is not wrapped is
// open to everybody.
func routes(verifier *verify.Verifier) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(verifier.Status())
	})
	// For each signed-in user. A revocation may be noticed late.
	mux.Handle("GET /hello", verifier.Require(http.HandlerFunc(hello), verify.FailOpen))
	// For users with the right to read the ship's log, and for those with the right to write.
	mux.Handle("GET /log", verifier.Require(http.HandlerFunc(hello), verify.Claim("log", "r")))
	mux.Handle("POST /log", verifier.Require(http.HandlerFunc(hello), verify.Claim("log", "r,w")))
	// For bursars and administrators. Without fresh revocations it answers 503.
	mux.Handle("POST /pay", verifier.Require(http.HandlerFunc(hello),
		verify.Any(verify.Claim("ship", "bursar"), verify.Claim("admin", "all")),
		verify.MaxStaleness(5*time.Second)))
	return mux
}

func hello(w http.ResponseWriter, r *http.Request) {
	token, _ := verify.FromContext(r.Context())
	fmt.Fprintf(w, "hello %s\n", token.Claim("preferred_username"))
}
