package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// logServer is the interface that protoc would make from
//
//	service Log {
//	  rpc Append(google.protobuf.StringValue) returns (google.protobuf.Empty);
//	  rpc Follow(google.protobuf.Empty) returns (stream google.protobuf.StringValue);
//	}
type logServer interface {
	Append(ctx context.Context, line *wrapperspb.StringValue) (*emptypb.Empty, error)
	Follow(in *emptypb.Empty, lines grpc.ServerStreamingServer[wrapperspb.StringValue]) error
}

// logService is the rest of what protoc would make. It is written by hand, so that the
// example is built without protoc.
var logService = grpc.ServiceDesc{
	ServiceName: "ship.Log",
	HandlerType: (*logServer)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Append", Handler: func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		in := new(wrapperspb.StringValue)
		if err := decode(in); err != nil {
			return nil, err
		}
		info := &grpc.UnaryServerInfo{Server: srv, FullMethod: "/ship.Log/Append"}
		return interceptor(ctx, in, info, func(ctx context.Context, in any) (any, error) {
			return srv.(logServer).Append(ctx, in.(*wrapperspb.StringValue))
		})
	}}},
	Streams: []grpc.StreamDesc{{StreamName: "Follow", ServerStreams: true, Handler: func(srv any, stream grpc.ServerStream) error {
		in := new(emptypb.Empty)
		if err := stream.RecvMsg(in); err != nil {
			return err
		}
		return srv.(logServer).Follow(in, &grpc.GenericServerStream[emptypb.Empty, wrapperspb.StringValue]{ServerStream: stream})
	}}},
}
