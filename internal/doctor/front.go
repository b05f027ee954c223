package doctor

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

var frontChecks = []Check{
	{"front-answers", "server.public_url leads to a replica", Error,
		"Clients, resource servers and browsers use this URL alone.", frontAnswers},
	{"front-certificate", "The certificate at server.public_url is good", Error,
		"Clients refuse a certificate that has expired, is for another name or is signed by an authority that they do not know.", frontCertificate},
	{"front-certificate-expiry", "The certificate at server.public_url does not expire soon", Warning,
		"When it expires, clients refuse the connection. It is found three weeks before, or when a quarter of its life is left. Renew it, and find out why that has not happened by itself.", frontCertificateExpiry},
	{"front-plain", "Without TLS nothing is served where server.public_url is https", Warning,
		"A user who types the name without `https://` sends a password or a cookie in the clear. Plain HTTP should lead to https, or to nothing.", frontPlain},
	{"front-hsts", "Browsers are told to use https alone", Advice,
		"With Strict-Transport-Security (RFC 6797) a browser that has been here once never asks without TLS again.", frontHSTS},
	{"front-probes", "The probes answer through server.public_url", Advice,
		"Monitoring from outside asks `/livez`, `/readyz` and `/health`. A load balancer that answers them itself hides how the replicas are.", frontProbes},
	{"front-metrics", "/metrics cannot be read from outside", Warning,
		"The metrics tell strangers how many people sign in and how many attacks succeed. Serve them on `server.metrics_address`, or have the load balancer refuse the path.", frontMetrics},
	{"front-spread", "Answers come from more than one replica", Warning,
		"If the load balancer sends everything to one replica, the others are idle, and nobody knows whether they work.", frontSpread},
	{"front-strangers", "The load balancer leads to replicas of this cluster alone", Error,
		"A server of another cluster behind the same URL refuses the tokens of this one, and answers for it.", frontStrangers},
	{"front-client-address", "Replicas see the addresses of clients through the load balancer", Error,
		"Limits count by address. Where all clients have that of the load balancer, one attacker uses up the attempts of everybody.", frontClientAddress},
	{"front-forged-address", "No client can choose the address that replicas see", Error,
		"A client that can choose its address gets around each limit by address, and puts others' addresses into the audit trail.", frontForgedAddress},
	{"front-stream", "The stream of revocations comes through the load balancer at once", Warning,
		"A proxy that holds back or cuts the stream has resource servers poll for pages instead, and they hear of revocations later.", frontStream},
	{"front-token-size", "A token of the largest size comes through the load balancer", Warning,
		"The tokens of users with many claims are long. A proxy with small buffers refuses their requests, and those of nobody else.", frontTokenSize},
}

const (
	// frontTimeout bounds one request through the load balancer.
	frontTimeout = 10 * time.Second
	// maxFront bounds what is read of an answer.
	maxFront = 1 << 20
	// streamGrace is how much later than revocation.poll says an event of the feed may come.
	streamGrace = 5 * time.Second
	// streamEvents is how many events show that the stream goes on.
	streamEvents = 3
	// frontTries is how many questions show which servers are behind the load balancer: each of
	// four, unless one that chooses by chance leaves one out, which happens once in 250 times.
	frontTries = 24
)

// Addresses that nobody has (RFC 5737), as a client that lies would name them.
const (
	forgedListed    = "192.0.2.177"  // in X-Forwarded-For
	forgedDescribed = "198.51.100.7" // in Forwarded
)

// An answer is what came through the load balancer.
type answer struct {
	status int
	header http.Header
	body   []byte
	tls    *tls.ConnectionState
}

// through gets a path of server.public_url, or another URL.
func (d *Deployment) through(ctx context.Context, path string, header http.Header) (answer, error) {
	if d.Reach < All {
		return answer{}, Skip("server.public_url is asked only when a person runs the checks")
	}
	if d.Front == nil {
		return answer{}, errors.New("there is no client for server.public_url")
	}
	if strings.HasPrefix(path, "/") {
		path = d.Config.Server.PublicURL + path
	}
	ctx, cancel := context.WithTimeout(ctx, frontTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	if err != nil {
		return answer{}, err
	}
	for name, values := range header {
		r.Header[name] = values
	}
	res, err := d.Front.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxFront))
	return answer{res.StatusCode, res.Header, body, res.TLS}, err
}

// badCertificate reports whether an error means that the server's certificate is not accepted.
func badCertificate(err error) bool {
	var bad *tls.CertificateVerificationError
	return errors.As(err, &bad)
}

func isSkip(err error) bool {
	var skip Skip
	return errors.As(err, &skip)
}

func frontAnswers(ctx context.Context, d *Deployment) ([]Finding, error) {
	a, err := d.through(ctx, "/livez", nil)
	const mend = "see whether server.public_url is right and its name leads to the load balancer, whether that runs, and whether it has a replica that is ready"
	switch {
	case isSkip(err), badCertificate(err): // which front-certificate says
		return nil, err
	case err != nil:
		return []Finding{{d.Config.Server.PublicURL, "it gives no answer: " + err.Error(), mend}}, nil
	case a.status != http.StatusOK || !a.says("alive"):
		return []Finding{{d.Config.Server.PublicURL, fmt.Sprintf("to /livez it answers %d, and not as a replica does", a.status), mend}}, nil
	}
	return nil, nil
}

// says reports whether an answer is a probe's with the status.
func (a answer) says(status ...string) bool {
	var probe struct{ Status string }
	return json.Unmarshal(a.body, &probe) == nil && slices.Contains(status, probe.Status)
}

// overTLS returns what came over TLS.
func (d *Deployment) overTLS(ctx context.Context) (answer, error) {
	if !strings.HasPrefix(d.Config.Server.PublicURL, "https://") {
		return answer{}, Skip("server.public_url is not https")
	}
	a, err := d.through(ctx, "/livez", nil)
	if err == nil && (a.tls == nil || len(a.tls.PeerCertificates) == 0) {
		err = errors.New("the answer did not come over TLS")
	}
	return a, err
}

func frontCertificate(ctx context.Context, d *Deployment) ([]Finding, error) {
	_, err := d.overTLS(ctx)
	if badCertificate(err) {
		return []Finding{{d.Config.Server.PublicURL, err.Error(),
			"give the load balancer a certificate for this name that has not expired, with its whole chain. If it is of an authority of your own, name that in cluster.ca_file"}}, nil
	}
	return nil, err
}

func frontCertificateExpiry(ctx context.Context, d *Deployment) ([]Finding, error) {
	a, err := d.overTLS(ctx)
	if err != nil {
		return nil, err
	}
	leaf := a.tls.PeerCertificates[0]
	if !expiresSoon(leaf, d.Now()) {
		return nil, nil
	}
	return []Finding{{d.Config.Server.PublicURL, fmt.Sprintf("its certificate expires at %s, in %v", moment(leaf.NotAfter), leaf.NotAfter.Sub(d.Now()).Round(time.Minute)), "renew the certificate"}}, nil
}

func frontPlain(ctx context.Context, d *Deployment) ([]Finding, error) {
	u, err := url.Parse(d.Config.Server.PublicURL)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "https" || u.Port() != "" {
		return nil, Skip("server.public_url is not https on its usual port")
	}
	u.Scheme = "http"
	a, err := d.through(ctx, u.String()+"/livez", nil)
	if isSkip(err) {
		return nil, err
	}
	if err != nil || a.status != http.StatusOK {
		return nil, nil // as it should be
	}
	return []Finding{{u.String(), "it answers without TLS", "have the load balancer redirect all of http to https, or close port 80"}}, nil
}

func frontHSTS(ctx context.Context, d *Deployment) ([]Finding, error) {
	a, err := d.overTLS(ctx)
	if err != nil || a.header.Get("Strict-Transport-Security") != "" {
		return nil, err
	}
	return []Finding{{d.Config.Server.PublicURL, "answers have no header Strict-Transport-Security",
		"have the load balancer set Strict-Transport-Security: max-age=31536000"}}, nil
}

func frontProbes(ctx context.Context, d *Deployment) (found []Finding, err error) {
	for _, probe := range []struct {
		path     string
		statuses []string
	}{{"/livez", []string{"alive"}}, {"/readyz", []string{"ready", "not_ready"}}, {"/health", []string{"ok", "failed"}}} {
		a, err := d.through(ctx, probe.path, nil)
		if err != nil {
			return nil, err
		}
		if !a.says(probe.statuses...) {
			found = append(found, Finding{probe.path, fmt.Sprintf("the answer is %d and not a replica's", a.status),
				"have the load balancer pass " + probe.path + " on, if it is to be watched from outside"})
		}
	}
	return found, nil
}

func frontMetrics(ctx context.Context, d *Deployment) ([]Finding, error) {
	if isLocal(hostOf(d.Config.Server.PublicURL)) {
		return nil, Skip("server.public_url leads to this machine alone")
	}
	a, err := d.through(ctx, "/metrics", nil)
	if err != nil || a.status != http.StatusOK || !strings.Contains(string(a.body), "\nwatchword_") {
		return nil, err
	}
	return []Finding{{"/metrics", "it answers everybody", "set server.metrics_address to an address that only Prometheus reaches, or have the load balancer refuse /metrics"}}, nil
}

// ask puts a question to whichever replica the load balancer chooses.
func (d *Deployment) ask(ctx context.Context, header http.Header) (Facts, error) {
	switch {
	case d.Reach < All:
		return Facts{}, Skip("server.public_url is asked only when a person runs the checks")
	case !d.Config.Cluster.Enabled:
		return Facts{}, Skip("a replica that is alone has no secret by which its answer could be believed (cluster.enabled)")
	case d.Config.Cluster.CertFile != "":
		return Facts{}, Skip("replicas answer only those that show a certificate (cluster.cert_file), and a load balancer shows none")
	case d.Through == nil:
		return Facts{}, errors.New("there is no client for server.public_url")
	}
	return d.Through(ctx, header, Question{})
}

// asks puts questions to whichever replicas the load balancer chooses. Of those that went wrong it
// returns the errors.
func (d *Deployment) asks(ctx context.Context) (answers []Facts, errs []error) {
	var mu sync.Mutex // guards answers and errs
	var asking sync.WaitGroup
	places := make(chan struct{}, maxProbes)
	for range frontTries {
		places <- struct{}{}
		asking.Go(func() {
			facts, err := d.ask(ctx, nil)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
			} else {
				answers = append(answers, facts)
			}
			<-places
		})
	}
	asking.Wait()
	return answers, errs
}

func frontSpread(ctx context.Context, d *Deployment) ([]Finding, error) {
	all, err := d.answered()
	if err != nil {
		return nil, err
	}
	ready := slices.DeleteFunc(all, func(r Replica) bool { return r.Facts.Ready != "" })
	if len(ready) < 2 {
		return nil, Skip("fewer than two replicas are ready")
	}
	answers, errs := d.asks(ctx)
	if len(answers) == 0 {
		return nil, errs[0]
	}
	if slices.ContainsFunc(answers, func(f Facts) bool { return f.Process != answers[0].Process }) {
		return nil, nil
	}
	return []Finding{{d.Config.Server.PublicURL, fmt.Sprintf("of %d replicas that are ready, %s alone gave all of %d answers", len(ready), answers[0].Instance, len(answers)),
		"name all replicas in the load balancer, with /readyz as their health check, and have it choose by turns. If it chooses by the client's address, ask from several"}}, nil
}

func frontStrangers(ctx context.Context, d *Deployment) (found []Finding, err error) {
	const mend = "take the server out of the load balancer, or give it the secret and the database of this cluster"
	answers, errs := d.asks(ctx)
	for _, one := range errs {
		if !cluster.IsStranger(one) {
			err = one
		} else if found == nil {
			found = append(found, Finding{d.Config.Server.PublicURL, "one of the servers behind it does not have the secret of this cluster: " + one.Error(), mend})
		}
	}
	for _, group := range divide(answers, func(f Facts) string { return f.Installation }) {
		if d.DB != nil && group.text != "" && group.text != d.Installation {
			found = append(found, Finding{enumerate(group.instances), fmt.Sprintf("it answers through the load balancer, and uses the database of installation %q and not of %q", group.text, d.Installation), mend})
		}
	}
	return orElse(found, err)
}

func frontClientAddress(ctx context.Context, d *Deployment) ([]Finding, error) {
	var own string
	facts, err := d.ask(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) { own = c.Conn.LocalAddr().String() },
	}), nil)
	if err != nil {
		return nil, err
	}
	r := facts.Request
	peer, err := netip.ParseAddrPort(r.Peer)
	if err != nil {
		return nil, fmt.Errorf("%s says that it was asked from %q: %w", facts.Instance, r.Peer, err)
	}
	from := peer.Addr().Unmap()
	named := slices.Concat(r.XForwardedFor, r.Forwarded)
	if len(named) == 0 {
		// An address that is not from inside may be this machine's own, behind a translator.
		if r.Peer == own || !from.IsPrivate() && !from.IsLoopback() {
			return nil, nil
		}
		return []Finding{{d.Config.Server.PublicURL, fmt.Sprintf("requests arrive at %s from %s, without X-Forwarded-For or Forwarded", facts.Instance, from),
			fmt.Sprintf("have the load balancer write the client's address into X-Forwarded-For (HAProxy: option forwardfor; nginx: proxy_set_header X-Forwarded-For $remote_addr), and name its address in server.trusted_proxies: %s", from)}}, nil
	}
	if r.Client != from.String() || strings.Contains(named[len(named)-1], from.String()) {
		return nil, nil
	}
	mend := fmt.Sprintf("add the load balancer's address to server.trusted_proxies: %s", from)
	if d.trusts(from) {
		mend = "set server.forwarded_header to the header that the load balancer writes"
	}
	return []Finding{{d.Config.Server.PublicURL, fmt.Sprintf("%s takes %s for the client's address, which is the load balancer's; that says %q", facts.Instance, from, named[len(named)-1]), mend}}, nil
}

// trusts reports whether an address is one of server.trusted_proxies.
func (d *Deployment) trusts(a netip.Addr) bool {
	trusted, err := d.Config.Server.Proxies()
	return err == nil && slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(a) })
}

// forge asks as a client that names an address that it does not have.
func (d *Deployment) forge(ctx context.Context) (Facts, error) {
	return d.ask(ctx, http.Header{"X-Forwarded-For": {forgedListed}, "Forwarded": {"for=" + forgedDescribed}})
}

func frontForgedAddress(ctx context.Context, d *Deployment) ([]Finding, error) {
	facts, err := d.forge(ctx)
	if err != nil {
		return nil, err
	}
	header, lines := "X-Forwarded-For", facts.Request.XForwardedFor
	switch facts.Request.Client {
	case forgedListed:
	case forgedDescribed:
		header, lines = "Forwarded", facts.Request.Forwarded
	default:
		return nil, nil
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("%s was asked with the forged address in another header than it was sent in: the load balancer rewrites the headers", facts.Instance)
	}
	if last := lines[len(lines)-1]; !strings.Contains(last, forgedListed) && !strings.Contains(last, forgedDescribed) || strings.Contains(last, ",") {
		return nil, Skip("the load balancer names the address of this machine, which is itself one of server.trusted_proxies and believed; run the checks from elsewhere")
	}
	return []Finding{{d.Config.Server.PublicURL, fmt.Sprintf("a request with %s: %s of the client's own was taken for one from there by %s", header, facts.Request.Client, facts.Instance),
		fmt.Sprintf("have the load balancer write %s itself and not pass on what a client sent, set server.forwarded_header to the header that it writes, and name in server.trusted_proxies the load balancer's address alone", header)}}, nil
}

func frontStream(ctx context.Context, d *Deployment) ([]Finding, error) {
	a, err := d.through(ctx, "/api/revocations?limit=1", nil)
	if err != nil {
		return nil, err
	}
	var page struct{ Head int64 }
	if err := json.Unmarshal(a.body, &page); err != nil || a.status != http.StatusOK {
		return nil, fmt.Errorf("to /api/revocations the answer is %d", a.status)
	}
	const mend = "have the load balancer pass each part of an answer to /api/revocations on at once (nginx: proxy_buffering off; HAProxy: option http-no-delay), and let an answer go on for longer than there is nothing to send"
	each := d.Config.Revocation.Poll + streamGrace
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	held := errors.New("nothing comes")
	clock := time.AfterFunc(each, func() { cancel(held) })
	defer clock.Stop()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, d.Config.Server.PublicURL+"/api/revocations?after="+strconv.FormatInt(page.Head, 10), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "text/event-stream")
	events, began := 0, time.Now()
	fault := func(seen string) ([]Finding, error) {
		if parent := context.Cause(ctx); parent != nil && !errors.Is(parent, held) {
			return nil, parent
		}
		return []Finding{{d.Config.Server.PublicURL + "/api/revocations", fmt.Sprintf("the stream %s, after %d events in %v; there should be one each %v",
			seen, events, time.Since(began).Round(100*time.Millisecond), d.Config.Revocation.Poll), mend}}, nil
	}
	res, err := d.Front.Do(r)
	if err != nil {
		return fault("does not begin")
	}
	defer res.Body.Close()
	if kind := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/event-stream") {
		return fault(fmt.Sprintf("is an answer %d of type %q", res.StatusCode, kind))
	}
	for lines := bufio.NewScanner(res.Body); events < streamEvents; {
		if !lines.Scan() {
			if errors.Is(context.Cause(ctx), held) {
				return fault("is held back")
			}
			return fault("ends")
		}
		if strings.HasPrefix(lines.Text(), "event:") {
			events++
			clock.Reset(each)
		}
	}
	return nil, nil
}

func frontTokenSize(ctx context.Context, d *Deployment) ([]Finding, error) {
	const scheme = "Bearer "
	long := http.Header{"Authorization": {scheme + strings.Repeat("x", accesstoken.DefaultMaxLength)}}
	a, err := d.through(ctx, "/livez", long)
	if isSkip(err) || badCertificate(err) {
		return nil, err
	}
	seen := ""
	switch {
	case err != nil:
		if _, err := d.through(ctx, "/livez", nil); err != nil {
			return nil, err
		}
		seen = "a request with one gets no answer: " + err.Error()
	case a.status != http.StatusOK:
		seen = fmt.Sprintf("a request with one is answered %d", a.status)
		if short, err := d.through(ctx, "/livez", nil); err != nil || short.status != http.StatusOK {
			return nil, fmt.Errorf("to /livez the answer is %d", a.status)
		}
	default:
		return nil, nil
	}
	return []Finding{{d.Config.Server.PublicURL, fmt.Sprintf("a token may have %d bytes, and %s", accesstoken.DefaultMaxLength, seen),
		"give the load balancer room for long headers (nginx: large_client_header_buffers 4 32k; HAProxy: tune.bufsize 49152)"}}, nil
}
