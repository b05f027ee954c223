// Package discovery finds the base URLs of the replicas: in a list, in the DNS, or
// in the EndpointSlices of a Kubernetes service. What was found stays until
// something else is found.
package discovery
