package discovery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/secretfile"
)

const (
	// serviceAccount is the directory where a pod finds its credentials.
	serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"
	// watchSeconds is how long one watch lasts; then the API server ends it.
	watchSeconds = 300
	// quietAfter is how much later than that the watch counts as lost.
	quietAfter = 30 * time.Second
	// retryAfter is the pause after a failure.
	retryAfter = 2 * time.Second
	// maxList bounds a list of EndpointSlices, in bytes.
	maxList = 16 << 20
	// maxToken bounds the service account's token, in bytes.
	maxToken = 64 << 10
)

// A Kubernetes is the API of the Kubernetes cluster in which this process runs. It needs the
// rights to list and watch EndpointSlices, and no others.
type Kubernetes struct {
	API       string // base URL
	Namespace string // of this process
	Token     string // file; read for every request, since it is renewed
	Client    *http.Client
}

// InCluster reads what Kubernetes gives to every pod.
func InCluster() (*Kubernetes, error) { return inCluster(os.Getenv, serviceAccount) }

func inCluster(getenv func(string) string, dir string) (*Kubernetes, error) {
	host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, errors.New("cluster.discovery: kubernetes works inside a pod alone; KUBERNETES_SERVICE_HOST is not set")
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("cluster.discovery: kubernetes: %w; let the pod have its service account's token (automountServiceAccountToken)", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("cluster.discovery: kubernetes: the service account's ca.crt has no certificate")
	}
	namespace, err := os.ReadFile(filepath.Join(dir, "namespace"))
	if err != nil {
		return nil, fmt.Errorf("cluster.discovery: kubernetes: %w", err)
	}
	return &Kubernetes{
		API: "https://" + net.JoinHostPort(host, port), Namespace: strings.TrimSpace(string(namespace)),
		Token: filepath.Join(dir, "token"),
		Client: &http.Client{Transport: &http.Transport{
			TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			ForceAttemptHTTP2:     true,
			ResponseHeaderTimeout: 10 * time.Second,
			TLSHandshakeTimeout:   10 * time.Second,
		}},
	}, nil
}

// endpointSlice is the part of a discovery.k8s.io/v1 EndpointSlice that is used.
type endpointSlice struct {
	Metadata struct {
		Name            string `json:"name"`
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
	Endpoints []struct {
		Addresses []string `json:"addresses"`
	} `json:"endpoints"`
	Ports []struct {
		Port *uint16 `json:"port"`
	} `json:"ports"`
}

// RunKubernetes puts the pods behind a service into the list, until ctx ends. The URL's host
// is service or service.namespace. If the URL has no port, the service's first one is used.
// Pods that are not ready are in the list, too: a replica that joins is not ready until the
// others have its keys.
func (l *List) RunKubernetes(ctx context.Context, k *Kubernetes, service *url.URL) {
	defer k.Client.CloseIdleConnections()
	failing := false
	for {
		err := l.follow(ctx, k, service)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !failing {
			l.logger.Warn("the EndpointSlices of Kubernetes cannot be followed; going on with the replicas that are known", "service", service.Hostname(), "err", err)
		}
		failing = err != nil
		pause(ctx, retryAfter)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// ListKubernetes does once what RunKubernetes does. If the API does not answer, the list stays
// as it is.
func (l *List) ListKubernetes(ctx context.Context, k *Kubernetes, service *url.URL) {
	path, query := endpointSlicesOf(k, service)
	if _, _, err := l.listSlices(ctx, k, path, query, service); err != nil {
		l.logger.WarnContext(ctx, "Kubernetes does not name the replicas yet", "service", service.Hostname(), "err", err)
	}
}

// endpointSlicesOf is where the slices of a service are.
func endpointSlicesOf(k *Kubernetes, service *url.URL) (path string, query url.Values) {
	name, namespace, found := strings.Cut(service.Hostname(), ".")
	if !found {
		namespace = k.Namespace
	}
	namespace, _, _ = strings.Cut(namespace, ".") // service.namespace.svc.cluster.local
	path = "/apis/discovery.k8s.io/v1/namespaces/" + url.PathEscape(namespace) + "/endpointslices"
	return path, url.Values{"labelSelector": {"kubernetes.io/service-name=" + name}}
}

// listSlices lists the slices and takes them in.
func (l *List) listSlices(ctx context.Context, k *Kubernetes, path string, query url.Values, service *url.URL) (slices map[string]endpointSlice, version string, err error) {
	var list struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Items []endpointSlice `json:"items"`
	}
	if err := k.list(ctx, path, query, &list); err != nil {
		return nil, "", err
	}
	slices = map[string]endpointSlice{}
	for _, s := range list.Items {
		slices[s.Metadata.Name] = s
	}
	l.take(peersIn(slices, service))
	return slices, list.Metadata.ResourceVersion, nil
}

// follow lists the slices, and then takes in the events of watches, until one fails.
func (l *List) follow(ctx context.Context, k *Kubernetes, service *url.URL) error {
	path, query := endpointSlicesOf(k, service)
	slices, version, err := l.listSlices(ctx, k, path, query, service)
	if err != nil {
		return err
	}
	for {
		began := time.Now()
		again, err := l.watch(ctx, k, path, query, &version, slices, service)
		if !again || err != nil {
			return err
		}
		if time.Since(began) < retryAfter { // a proxy on the way may end watches early
			pause(ctx, retryAfter)
		}
	}
}

func (k *Kubernetes) list(ctx context.Context, path string, query url.Values, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	body, err := k.get(ctx, path, query)
	if err != nil {
		return err
	}
	defer body.Close()
	return json.NewDecoder(io.LimitReader(body, maxList)).Decode(into)
}

// watch takes in one watch. It reports whether another one may go on where it ended.
// Otherwise the slices must be listed again.
func (l *List) watch(ctx context.Context, k *Kubernetes, path string, query url.Values, version *string, slices map[string]endpointSlice, service *url.URL) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, watchSeconds*time.Second+quietAfter)
	defer cancel()
	watching := url.Values{
		"watch": {"1"}, "allowWatchBookmarks": {"true"},
		"resourceVersion": {*version}, "timeoutSeconds": {strconv.Itoa(watchSeconds)},
		"labelSelector": query["labelSelector"],
	}
	body, err := k.get(ctx, path, watching)
	var status *statusError
	if errors.As(err, &status) && status.code == http.StatusGone {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer body.Close()
	for events := json.NewDecoder(body); ; {
		var event struct {
			Type   string        `json:"type"`
			Object endpointSlice `json:"object"`
		}
		if err := events.Decode(&event); err != nil {
			if errors.Is(err, io.EOF) { // the watch's time was over
				return true, nil
			}
			return false, err
		}
		switch event.Type {
		case "ADDED", "MODIFIED":
			slices[event.Object.Metadata.Name] = event.Object
		case "DELETED":
			delete(slices, event.Object.Metadata.Name)
		case "BOOKMARK":
		default: // ERROR: the version is too old
			return false, nil
		}
		*version = event.Object.Metadata.ResourceVersion
		l.take(peersIn(slices, service))
	}
}

// A statusError is an answer of the API that is not 200.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return fmt.Sprintf("the API answers %d: %s", e.code, e.text) }

func (k *Kubernetes) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	token, _, err := secretfile.Rules{Max: maxToken}.Read(k.Token)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.API+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	r.Header.Set("Accept", "application/json")
	answer, err := k.Client.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		var status struct {
			Message string `json:"message"`
		}
		_ = json.NewDecoder(io.LimitReader(answer.Body, 64<<10)).Decode(&status) // without a message, the status code is enough
		return nil, &statusError{answer.StatusCode, status.Message}
	}
	return answer.Body, nil
}

// peersIn are the replicas in the slices of a service.
func peersIn(slices map[string]endpointSlice, service *url.URL) []Peer {
	var peers []Peer
	for _, s := range slices {
		port := uint16(0)
		if service.Port() != "" {
			port = portOf(service)
		} else if len(s.Ports) > 0 && s.Ports[0].Port != nil {
			port = *s.Ports[0].Port
		}
		if port == 0 {
			continue
		}
		for _, e := range s.Endpoints {
			if len(e.Addresses) > 0 { // all addresses of one endpoint lead to it
				peers = append(peers, Peer{URL: base(service, e.Addresses[0], port), Name: service.Hostname()})
			}
		}
	}
	return peers
}
