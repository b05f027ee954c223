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
// It is a package of its own, so that package verify needs no module but golang-jwt. It is
// not a module of its own: a program that uses it has gRPC anyway, and needs only one
// version of Watchword; a program that does not use it neither builds nor links gRPC,
// because Go takes only the modules whose packages are imported. A test holds that neither
// package verify nor the server contains gRPC.
package grpcverify
