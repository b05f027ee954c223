package main

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/node"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestGRPC(t *testing.T) {
	auth := node.Start(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, listener, auth.URL) }()
	client, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	as := func(token string) context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), kit.Patience)
		t.Cleanup(cancel)
		if token == "" {
			return ctx
		}
		return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	write := func(token, line string) error {
		for ctx := as(token); ; time.Sleep(10 * time.Millisecond) {
			err := client.Invoke(ctx, "/ship.Log/Append", wrapperspb.String(line), new(emptypb.Empty))
			if status.Code(err) != codes.Unavailable { // the client is to try again
				return err
			}
		}
	}
	want := func(err error, code codes.Code, text string) {
		t.Helper()
		if s := status.Convert(err); s.Code() != code || !strings.Contains(s.Message(), text) {
			t.Errorf("got %v, want %v %s", err, code, text)
		}
	}

	if _, err := healthpb.NewHealthClient(client).Check(as(""), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("health: %v", err)
	}
	writer, reader := auth.Login("tester").AccessToken, auth.Login("tester").AccessToken
	want(write("", "x"), codes.Unauthenticated, "token_missing")
	want(write(auth.Login("admin").AccessToken, "x"), codes.PermissionDenied, "log=w")
	if err := write(writer, "set sail"); err != nil {
		t.Fatal(err)
	}

	stream, err := client.NewStream(as(reader), &grpc.StreamDesc{ServerStreams: true}, "/ship.Log/Follow")
	if err != nil {
		t.Fatal(err)
	}
	lines := &grpc.GenericClientStream[emptypb.Empty, wrapperspb.StringValue]{ClientStream: stream}
	if err := lines.SendMsg(&emptypb.Empty{}); err != nil {
		t.Fatal(err)
	}
	if line, err := lines.Recv(); err != nil || line.GetValue() != "tester: set sail" {
		t.Errorf("the log reads %v, %v", line, err)
	}
	// The reader logs out. After that, soon no further line comes.
	auth.Logout(reader)
	for deadline := time.Now().Add(kit.Patience); ; {
		if err := write(writer, "land ahead"); err != nil {
			t.Fatal(err)
		}
		if _, err := lines.Recv(); err != nil {
			want(err, codes.Unauthenticated, "token_revoked")
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a user who has logged out reads on")
		}
	}

	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
