// Custom-state is a replica whose sessions are in a backend of the program's own: a file,
// for a single replica. Package state says what a backend promises, and the test of this one
// checks it with package state/statetest.
//
//	ADMIN_GUI_USERNAME=admin ADMIN_GUI_PASSWORD='correct horse battery staple' go run ./examples/custom-state
package main

import (
	"context"
	"log"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/watchword-auth/watchword"
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
	if err := run(ctx, cfg, listener, "sessions.jsonl"); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, cfg *watchword.Config, listener net.Listener, file string) error {
	sessions, err := OpenFileState(file, time.Now)
	if err != nil {
		return err
	}
	defer sessions.Close()
	node, err := watchword.New(ctx, cfg, watchword.WithState(sessions))
	if err != nil {
		return err
	}
	defer node.Close()

	server := &http.Server{Handler: node.Handler(), ReadHeaderTimeout: 5 * time.Second}
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
