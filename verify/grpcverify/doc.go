// Package grpcverify is package verify for gRPC servers: interceptors that let a
// call through only with a good access token in its metadata.
//
//	guard := grpcverify.New(verifier).
//		Method("/ship.Log/Read", verify.Claim("log", "r")).
//		Public("/grpc.health.v1.Health/")
//	server := grpc.NewServer(guard.ServerOptions()...)
//	…
//	if err := guard.Check(server); err != nil {
//		log.Fatal(err)
//	}
//
// It is a package of its own, so that package verify brings no more than golang-jwt
// to those who do not speak gRPC. It is no module of its own: who uses it has gRPC
// anyway, and so he gets one version of Watchword and not two to keep in step; who
// does not use it neither builds gRPC nor links it, because Go takes only the
// modules whose packages are imported. A test holds that neither package verify nor
// the server contains it.
package grpcverify
