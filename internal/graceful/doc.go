// Package graceful owns the listener of a replica: it answers from the moment the
// process starts, closes without dropping a request, and takes over a renewed
// certificate.
//
// http.Server.Shutdown alone drops requests. It resets connections that the kernel has
// accepted and the program has not, and it closes idle connections on which a request
// is just arriving.
package graceful
