// Embed is a program with a whole Watchword replica inside. The replica answers under its
// usual paths, and the program's own page requires its tokens.
//
//	ADMIN_GUI_USERNAME=admin ADMIN_GUI_PASSWORD='correct horse battery staple' go run ./examples/embed
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/watchword-auth/watchword"
	"github.com/watchword-auth/watchword/verify"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	cfg, err := watchword.LoadConfig("")
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", cfg.Server.Address)
	if err != nil {
		log.Fatal(err)
	}
	if err := run(ctx, cfg, listener); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, cfg *watchword.Config, listener net.Listener) error {
	node, err := watchword.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close()

	mux := http.NewServeMux()
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	mux.Handle("/", node.Handler())

	// The program's own page verifies tokens as each resource server does: with the
	// replica's key set and feed of revocations.
	verifier, err := verify.New(verify.Config{Issuer: cfg.Server.PublicURL})
	if err != nil {
		return err
	}
	defer verifier.Close()
	mux.Handle("/hello", verifier.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := verify.FromContext(r.Context())
		fmt.Fprintf(w, "hello %s\n", token.Claim("preferred_username"))
	})))

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	node.Drain()
	drained, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return server.Shutdown(drained)
}
