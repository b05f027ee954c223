// Package discovery finds the base URLs of the replicas: in a list, in the DNS, or in the
// EndpointSlices of a Kubernetes service. URLs that were found stay until others are found, so
// that an outage of the DNS or of Kubernetes removes none.
package discovery
