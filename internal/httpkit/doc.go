// Package httpkit owns what all HTTP faces share: strict JSON, errors as problem details
// (RFC 9457), the log and the metrics of requests, the client's address, authentication by
// bearer token, what one user or address may have of a replica at once, answers to slow
// readers, and the registration of routes with their OpenAPI description.
package httpkit
