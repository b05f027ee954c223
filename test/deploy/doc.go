// Package deploy tests deploy/k8s and deploy/helm: that the manifests and what the chart makes
// of a matrix of values can be used, and that they say the same.
//
// The chart is rendered by a small engine of the tests, since Helm's own takes 90 s to
// compile. What it renders is held by golden files. In the long form Helm itself is held to
// the same files, and a real kube-apiserver has to accept all of it.
//
//	go test ./test/deploy -update
//
// writes the golden files, the chart's values.schema.json, and the table of values in its
// README.md anew.
package deploy
