package grpcverify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A Guard decides which calls a server accepts. It is set up before it is used; after that
// it is safe for concurrent use.
type Guard struct {
	verifier *verify.Verifier
	always   []verify.Condition
	rules    map[string]rule // by method "/package.Service/Method" or service "/package.Service/"
}

type rule struct {
	public     bool
	conditions []verify.Condition
}

// New makes a Guard. Every call needs a good token that meets the conditions.
func New(v *verify.Verifier, conditions ...verify.Condition) *Guard {
	return &Guard{verifier: v, always: conditions, rules: map[string]rule{}}
}

// Method adds conditions for one method, "/package.Service/Method", or for all methods of a
// service, "/package.Service/".
func (g *Guard) Method(name string, conditions ...verify.Condition) *Guard {
	r := g.rules[name]
	r.conditions = append(r.conditions, conditions...)
	g.rules[name] = r
	return g
}

// Public lets the calls of a method, or of all methods of a service, through without a
// token. A method with conditions of its own is not public.
func (g *Guard) Public(name string) *Guard {
	r := g.rules[name]
	r.public = true
	g.rules[name] = r
	return g
}

// ServerOptions returns the options with which a server has the Guard check every call.
func (g *Guard) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(g.Unary), grpc.ChainStreamInterceptor(g.Stream)}
}

// Check returns an error if the server lacks a method or service that the Guard was given,
// since a misspelt name protects nothing. It is called when all services are registered.
func (g *Guard) Check(s *grpc.Server) error {
	known := map[string]bool{}
	for service, info := range s.GetServiceInfo() {
		known["/"+service+"/"] = true
		for _, m := range info.Methods {
			known["/"+service+"/"+m.Name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(g.rules)) {
		if !known[name] {
			return fmt.Errorf("grpcverify: the server has no method or service %q", name)
		}
	}
	return nil
}

// Unary is a grpc.UnaryServerInterceptor. The handler finds the token with
// verify.FromContext.
func (g *Guard) Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	call, err := g.begin(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handler(call.ctx, request)
}

// checkEvery is how often a stream's token is checked again while no message comes.
const checkEvery = time.Second

// Stream is a grpc.StreamServerInterceptor. The token is checked again with every message,
// and every second. When it has expired or was revoked, or its authentication is no longer
// fresh (verify.FreshAuth), no further message is received or sent, and the stream's context
// ends. When the handler returns, the call ends with that reason.
func (g *Guard) Stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	call, err := g.begin(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	defer call.watch()()
	err = handler(server, &guardedStream{ServerStream: stream, call: call})
	if refused := call.refused.Load(); refused != nil {
		return *refused // whatever the handler returned
	}
	return err
}

// A call is one that was let through.
type call struct {
	guard      *Guard
	ctx        context.Context // with the token
	token      string
	conditions []verify.Condition
	public     bool
	refused    atomic.Pointer[error] // why it was ended; nil: it was not
}

func (g *Guard) begin(ctx context.Context, method string) (*call, error) {
	service := method[:strings.LastIndexByte(method, '/')+1]
	ofService, ofMethod := g.rules[service], g.rules[method]
	if len(ofMethod.conditions) == 0 && (ofMethod.public || ofService.public && len(ofService.conditions) == 0) {
		return &call{ctx: ctx, public: true}, nil
	}
	token, err := verify.Bearer(metadata.ValueFromIncomingContext(ctx, "authorization"))
	if err != nil {
		return nil, refusal(err)
	}
	c := &call{guard: g, ctx: ctx, token: token, conditions: slices.Concat(g.always, ofService.conditions, ofMethod.conditions)}
	t, err := g.verifier.Verify(ctx, token, c.conditions...)
	if err != nil {
		return nil, refusal(err)
	}
	c.ctx = verify.NewContext(ctx, t)
	return c, nil
}

// watch ends the call's context when the token is no longer good. It ends with stop, which
// returns when the watching goroutine has ended.
func (c *call) watch() (stop func()) {
	if c.public {
		return func() {}
	}
	ctx, cancel := context.WithCancel(c.ctx)
	c.ctx = ctx
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(checkEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if c.again() != nil {
				cancel()
				return
			}
		}
	})
	return func() {
		cancel()
		watching.Wait()
	}
}

// again returns nil if the token is still good, or the call's refusal.
func (c *call) again() error {
	if c.public {
		return nil
	}
	if _, err := c.guard.verifier.Verify(c.ctx, c.token, c.conditions...); err != nil {
		err = refusal(err)
		if c.ctx.Err() == nil { // otherwise the error is not about the token
			c.refused.CompareAndSwap(nil, &err)
		}
		return err
	}
	return nil
}

type guardedStream struct {
	grpc.ServerStream
	call *call
}

// Context carries the token.
func (s *guardedStream) Context() context.Context { return s.call.ctx }

// RecvMsg gives the handler no message that came after the token was refused.
func (s *guardedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.call.again()
}

// SendMsg sends nothing after the token was refused.
func (s *guardedStream) SendMsg(m any) error {
	if err := s.call.again(); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

// refusal returns an error as a status. The status message begins with the stable code, such as
// "reauthentication_required: ", which comes with Unauthenticated. gRPC has no challenges, so
// nothing says where the metadata of verify.Config.Resource are.
func refusal(err error) error {
	e := &accesstoken.Error{}
	if !errors.As(err, &e) {
		e = verify.ErrKeysUnavailable
	}
	code := codes.Unauthenticated
	switch {
	case errors.Is(e, verify.ErrForbidden):
		code = codes.PermissionDenied
	case errors.Is(e, verify.ErrStale), errors.Is(e, verify.ErrKeysUnavailable):
		code = codes.Unavailable
	}
	return status.Error(code, e.Code+": "+e.Detail)
}
