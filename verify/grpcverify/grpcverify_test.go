package grpcverify_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/grpcverify"
	"github.com/watchword-auth/watchword/verify/revoked"
	"github.com/watchword-auth/watchword/verify/verifytest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// logService is what protoc would generate for a service "ship.Log" with the
// methods Read and Open, and the stream Follow. Each says who called.
var logService = grpc.ServiceDesc{
	ServiceName: "ship.Log", HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Read", Handler: whoami}, {MethodName: "Open", Handler: whoami}},
	Streams: []grpc.StreamDesc{
		{StreamName: "Follow", Handler: follow, ServerStreams: true, ClientStreams: true},
		{StreamName: "Stubborn", Handler: stubborn, ServerStreams: true, ClientStreams: true},
		{StreamName: "Silent", Handler: silent, ServerStreams: true, ClientStreams: true},
	},
}

func who(ctx context.Context) *wrapperspb.StringValue {
	if t, ok := verify.FromContext(ctx); ok {
		return wrapperspb.String(t.Subject)
	}
	return wrapperspb.String("nobody")
}

func whoami(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
	in := new(wrapperspb.StringValue)
	if err := decode(in); err != nil {
		return nil, err
	}
	handler := func(ctx context.Context, _ any) (any, error) { return who(ctx), nil }
	method, _ := grpc.Method(ctx)
	return interceptor(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: method}, handler)
}

// follow answers every message.
func follow(_ any, stream grpc.ServerStream) error {
	for {
		in := new(wrapperspb.StringValue)
		if err := stream.RecvMsg(in); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := stream.SendMsg(who(stream.Context())); err != nil {
			return err
		}
	}
}

// silent waits until its context ends.
func silent(_ any, stream grpc.ServerStream) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

// stubborn ignores errors of the stream, goes on sending, and says that all is well.
func stubborn(_ any, stream grpc.ServerStream) error {
	for stream.RecvMsg(new(wrapperspb.StringValue)) == nil {
		_ = stream.SendMsg(who(stream.Context()))
	}
	for range 10 {
		_ = stream.SendMsg(wrapperspb.String("secret"))
	}
	return nil
}

type world struct {
	*testing.T
	issuer   *verifytest.Issuer
	verifier *verify.Verifier
	client   *grpc.ClientConn
}

func newWorld(t *testing.T, guard func(*verify.Verifier) *grpcverify.Guard, secrets ...string) *world {
	t.Helper()
	w := &world{T: t, issuer: verifytest.New(t)}
	cfg := w.issuer.Config()
	cfg.Secrets = secrets
	var err error
	if w.verifier, err = verify.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.verifier.Close)
	g := guard(w.verifier)
	server := grpc.NewServer(g.ServerOptions()...)
	server.RegisterService(&logService, nil)
	if err := g.Check(server); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	if w.client, err = grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.client.Close() })
	return w
}

func (w *world) context(authorization ...string) context.Context {
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	w.Cleanup(cancel)
	for _, a := range authorization {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", a)
	}
	return ctx
}

func (w *world) call(method string, authorization ...string) (string, error) {
	out := new(wrapperspb.StringValue)
	err := w.client.Invoke(w.context(authorization...), method, wrapperspb.String(""), out)
	return out.GetValue(), err
}

func (w *world) stream(method string, authorization ...string) grpc.ClientStream {
	w.Helper()
	s, err := w.client.NewStream(w.context(authorization...), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		w.Fatal(err)
	}
	return s
}

// exchange sends a message and returns the answer.
func exchange(s grpc.ClientStream) (string, error) {
	if err := s.SendMsg(wrapperspb.String("")); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	out := new(wrapperspb.StringValue)
	err := s.RecvMsg(out)
	return out.GetValue(), err
}

// want fails unless the error has the gRPC code and begins with ours.
func (w *world) want(err error, code codes.Code, ours string) {
	w.Helper()
	if s := status.Convert(err); s.Code() != code || !strings.HasPrefix(s.Message(), ours+": ") {
		w.Errorf("got %v, want %v %s", err, code, ours)
	}
}

func TestCalls(t *testing.T) {
	w := newWorld(t, func(v *verify.Verifier) *grpcverify.Guard {
		return grpcverify.New(v).Method("/ship.Log/Read", verify.Claim("log", "r")).Public("/ship.Log/Open")
	})
	reader := w.issuer.Token("u1", map[string]string{"log": "r,w"})
	gone := w.issuer.Sign("u2", map[string]any{"jti": "gone"})
	w.issuer.Revoke(revoked.Token, "gone")
	w.awaitRevoked(gone)
	for name, c := range map[string]struct {
		authorization []string
		code          codes.Code
		ours          string
	}{
		"a good token": {[]string{"Bearer " + reader}, codes.OK, ""},
		"any case":     {[]string{"bearer " + reader}, codes.OK, ""},
		"none":         {nil, codes.Unauthenticated, "token_missing"},
		"basic":        {[]string{"Basic dTpw"}, codes.Unauthenticated, "token_missing"},
		"two":          {[]string{"Bearer " + reader, "Bearer " + reader}, codes.Unauthenticated, "invalid_request"},
		"garbage":      {[]string{"Bearer x"}, codes.Unauthenticated, "token_malformed"},
		"another's":    {[]string{"Bearer " + verifytest.New(t).Token("u1", nil)}, codes.Unauthenticated, "token_signature"},
		"revoked":      {[]string{"Bearer " + gone}, codes.Unauthenticated, "token_revoked"},
		"no claim":     {[]string{"Bearer " + w.issuer.Token("u3", nil)}, codes.PermissionDenied, "forbidden"},
	} {
		got, err := w.call("/ship.Log/Read", c.authorization...)
		if c.code != codes.OK {
			t.Run(name, func(t *testing.T) { w.want(err, c.code, c.ours) })
		} else if err != nil || got != "u1" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if got, err := w.call("/ship.Log/Open"); err != nil || got != "nobody" {
		t.Errorf("a public method answers %q, %v", got, err)
	}
	_, err := exchange(w.stream("/ship.Log/Follow"))
	w.want(err, codes.Unauthenticated, "token_missing")
	if got, err := exchange(w.stream("/ship.Log/Follow", "Bearer "+reader)); err != nil || got != "u1" {
		t.Errorf("a stream answers %q, %v", got, err)
	}
}

// A stream that was let in ends when its token is revoked.
func TestAStreamEndsWithItsToken(t *testing.T) {
	w := newWorld(t, func(v *verify.Verifier) *grpcverify.Guard { return grpcverify.New(v) })
	for _, method := range []string{"/ship.Log/Follow", "/ship.Log/Stubborn"} {
		token := w.issuer.Sign("u", map[string]any{"jti": method})
		s := w.stream(method, "Bearer "+token)
		for range 3 {
			if got, err := exchange(s); err != nil || got != "u" {
				t.Fatalf("%s answers %q, %v", method, got, err)
			}
		}
		w.issuer.Revoke(revoked.Token, method)
		w.awaitRevoked(token)
		got, err := exchange(s)
		if w.want(err, codes.Unauthenticated, "token_revoked"); got != "" {
			t.Errorf("%s sent %q", method, got)
		}

		expiring := w.issuer.Sign("u", map[string]any{"exp": float64(time.Now().Add(300*time.Millisecond).UnixMilli()) / 1000})
		s = w.stream(method, "Bearer "+expiring)
		sending := make(chan struct{})
		go func() { // also when no answer comes: the token may expire before it is sent
			defer close(sending)
			for s.SendMsg(wrapperspb.String("")) == nil {
				time.Sleep(time.Millisecond)
			}
		}()
		for err = nil; err == nil; {
			err = s.RecvMsg(new(wrapperspb.StringValue))
		}
		<-sending
		w.want(err, codes.Unauthenticated, "token_expired")
	}
}

// So does one whose handler neither receives nor sends.
func TestASilentStreamEndsWithItsToken(t *testing.T) {
	w := newWorld(t, func(v *verify.Verifier) *grpcverify.Guard { return grpcverify.New(v) })
	s := w.stream("/ship.Log/Silent", "Bearer "+w.issuer.Sign("u", map[string]any{"jti": "silent"}))
	if err := s.SendMsg(wrapperspb.String("")); err != nil {
		t.Fatal(err)
	}
	w.issuer.Revoke(revoked.Token, "silent")
	w.want(s.RecvMsg(new(wrapperspb.StringValue)), codes.Unauthenticated, "token_revoked")
}

func (w *world) awaitRevoked(token string) {
	w.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := w.verifier.Verify(w.Context(), token); errors.Is(err, verify.ErrRevoked) {
			return
		}
		if time.Now().After(deadline) {
			w.Fatal("the revocation does not arrive")
		}
	}
}

// Of a service and a method the narrower rule says what is public, and conditions
// add up.
func TestRules(t *testing.T) {
	r, x := verify.Claim("log", "r"), verify.Claim("x", "y")
	for name, c := range map[string]struct {
		guard func(g *grpcverify.Guard)
		open  string // what a call of Read without a token gives
		r, rx string // and with a token that holds log=r, and x=y as well
	}{
		"none":                         {func(*grpcverify.Guard) {}, "token_missing", "", ""},
		"a public service":             {func(g *grpcverify.Guard) { g.Public("/ship.Log/") }, "", "", ""},
		"a public method":              {func(g *grpcverify.Guard) { g.Public("/ship.Log/Read") }, "", "", ""},
		"another public method":        {func(g *grpcverify.Guard) { g.Public("/ship.Log/Open") }, "token_missing", "", ""},
		"conditions of the service":    {func(g *grpcverify.Guard) { g.Method("/ship.Log/", x) }, "token_missing", "forbidden", ""},
		"both":                         {func(g *grpcverify.Guard) { g.Method("/ship.Log/", r).Method("/ship.Log/Read", x) }, "token_missing", "forbidden", ""},
		"one after the other":          {func(g *grpcverify.Guard) { g.Method("/ship.Log/Read", r).Method("/ship.Log/Read", x) }, "token_missing", "forbidden", ""},
		"a method in a public service": {func(g *grpcverify.Guard) { g.Public("/ship.Log/").Method("/ship.Log/Read", x) }, "token_missing", "forbidden", ""},
		"a public method in a service": {func(g *grpcverify.Guard) { g.Method("/ship.Log/", x).Public("/ship.Log/Read") }, "", "", ""},
		"public and conditions":        {func(g *grpcverify.Guard) { g.Public("/ship.Log/Read").Method("/ship.Log/Read", x) }, "token_missing", "forbidden", ""},
		"a public service with some":   {func(g *grpcverify.Guard) { g.Public("/ship.Log/").Method("/ship.Log/", x) }, "token_missing", "forbidden", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(v *verify.Verifier) *grpcverify.Guard {
				g := grpcverify.New(v)
				c.guard(g)
				return g
			})
			tokens := map[string]string{
				"r":  "Bearer " + w.issuer.Token("u", map[string]string{"log": "r"}),
				"rx": "Bearer " + w.issuer.Token("u", map[string]string{"log": "r", "x": "y"}),
			}
			for who, want := range map[string]string{"": c.open, "r": c.r, "rx": c.rx} {
				var authorization []string
				if who != "" {
					authorization = []string{tokens[who]}
				}
				_, err := w.call("/ship.Log/Read", authorization...)
				if got, _, _ := strings.Cut(status.Convert(err).Message(), ":"); got != want {
					t.Errorf("%q is answered %v, want %q", who, err, want)
				}
			}
		})
	}
}

func TestWhatIsMisspelt(t *testing.T) {
	server := grpc.NewServer()
	server.RegisterService(&logService, nil)
	for _, name := range []string{"/ship.Log/Reed", "ship.Log/Read", "/ship.Log", "/Log/", "/", ""} {
		if err := grpcverify.New(nil).Method(name).Check(server); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
			t.Errorf("%q passes the check: %v", name, err)
		}
	}
	if err := grpcverify.New(nil).Method("/ship.Log/").Public("/ship.Log/Follow").Check(server); err != nil {
		t.Error(err)
	}
}

// While it is not known which tokens are good, the answer says that the client may try again.
func TestUnavailable(t *testing.T) {
	w := newWorld(t, func(*verify.Verifier) *grpcverify.Guard {
		v, err := verify.New(verify.Config{Issuer: "http://127.0.0.1:1"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(v.Close)
		return grpcverify.New(v)
	})
	_, err := w.call("/ship.Log/Read", "Bearer "+w.issuer.Token("u", nil))
	w.want(err, codes.Unavailable, verify.ErrKeysUnavailable.Code)
}

// Package verify does not import gRPC, so that servers without gRPC do not build it.
func TestTheServerDoesNotContainGRPC(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "github.com/watchword-auth/watchword/cmd/watchword").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "watchword/internal/httpapi") || strings.Contains(string(out), "google.golang.org/grpc") {
		t.Errorf("the server contains gRPC, or go list does not say what it contains:\n%s", out)
	}
}
