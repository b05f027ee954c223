// Grpc is a gRPC service that takes Watchword's access tokens: a ship's log, with a right to
// read and a right to write.
//
// Users with claims, and how to try it: examples/README.md.
//
//	go run ./examples/grpc -issuer http://127.0.0.1:8080
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"os/signal"
	"sync"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/grpcverify"
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

	guard := grpcverify.New(verifier).
		Method("/ship.Log/Append", verify.Claim("log", "w")).
		Method("/ship.Log/Follow", verify.Claim("log", "r")).
		Public("/grpc.health.v1.Health/")
	server := grpc.NewServer(guard.ServerOptions()...)
	server.RegisterService(&logService, &shipLog{news: make(chan struct{})})
	healthpb.RegisterHealthServer(server, health.NewServer())
	if err := guard.Check(server); err != nil {
		return errors.Join(err, listener.Close())
	}
	// Not GracefulStop, which would wait for clients that follow the log.
	defer context.AfterFunc(ctx, server.Stop)()
	return server.Serve(listener)
}

// A shipLog keeps its lines in memory.
type shipLog struct {
	mu    sync.Mutex
	lines []string
	news  chan struct{} // closed and replaced by every line
}

// Append adds a line under its writer's name.
func (l *shipLog) Append(ctx context.Context, line *wrapperspb.StringValue) (*emptypb.Empty, error) {
	token, _ := verify.FromContext(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, token.Claim("preferred_username")+": "+line.GetValue())
	close(l.news)
	l.news = make(chan struct{})
	return &emptypb.Empty{}, nil
}

// Follow sends all lines, and then each new one. It ends when the reader's token has expired
// or was revoked, which is an error of Send.
func (l *shipLog) Follow(_ *emptypb.Empty, lines grpc.ServerStreamingServer[wrapperspb.StringValue]) error {
	for sent := 0; ; {
		l.mu.Lock()
		rest, news := l.lines[sent:], l.news
		l.mu.Unlock()
		for _, line := range rest {
			if err := lines.Send(wrapperspb.String(line)); err != nil {
				return err
			}
			sent++
		}
		select {
		case <-news:
		case <-lines.Context().Done():
			return nil
		}
	}
}
