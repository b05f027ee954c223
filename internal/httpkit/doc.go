// Package httpkit owns what all HTTP faces share: strict JSON, errors as problem details
// (RFC 9457), the log and the metrics of requests, the client's address, authentication by
// bearer token, and the registration of routes with their OpenAPI description.
package httpkit
