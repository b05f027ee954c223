package remote

import (
	"bytes"
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
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/secretfile"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

const (
	// maxAnswer bounds what is read of an answer: a thousand versions of an RSA key.
	maxAnswer = accesstoken.MaxKeySetLength
	// maxConns bounds the connections to the signer. Further requests wait for one, until
	// their timeout.
	maxConns = 64
	// maxSaid bounds what an error repeats of what the signer has said.
	maxSaid = 300
)

// A client sends requests to the signer. It does not know what they mean.
type client struct {
	http    *http.Client
	base    string // the URL without a slash at its end
	token   func() (string, error)
	header  func(http.Header, string) // puts the token into a header
	timeout time.Duration
	ended   context.Context // until close
	end     context.CancelFunc
}

func newClient(cfg Config) (*client, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("the URL of the remote signer is not an http or https URL")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, errors.New("the URL of the remote signer has a user, a query or a fragment, which it must not have")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return nil, fmt.Errorf("the URL of the remote signer (%s) is not https: somebody on the network could take the signer's place, and sign every token", u)
	case (cfg.CertFile == "") != (cfg.KeyFile == ""):
		return nil, errors.New("the remote signer's client certificate and its key are set together or not at all")
	case u.Scheme == "http" && (cfg.CAFile != "" || cfg.CertFile != ""):
		return nil, errors.New("certificates are set for the remote signer, but its URL is not https")
	case cfg.Timeout < 0:
		return nil, errors.New("the timeout of the remote signer is negative")
	}
	tlsConfig, err := tlsConfig(cfg)
	if err != nil {
		return nil, err
	}
	// In HTTP/1.1 a request that times out also ends its dead connection.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	c := &client{base: strings.TrimRight(u.String(), "/"), token: cfg.Token, timeout: cfg.Timeout}
	if c.timeout == 0 {
		c.timeout = DefaultTimeout
	}
	c.header = func(h http.Header, token string) { h.Set("Authorization", "Bearer "+token) }
	c.ended, c.end = context.WithCancel(context.Background())
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			Protocols:              protocols,
			TLSClientConfig:        tlsConfig,
			MaxConnsPerHost:        maxConns,
			MaxIdleConnsPerHost:    maxConns,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 64 << 10,
		},
		// The token is for the signer that the operator has named, and for no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

func tlsConfig(cfg Config) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("the remote signer's authorities: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the remote signer's authorities: %s has no certificate", cfg.CAFile)
		}
	}
	if cfg.CertFile != "" {
		if _, err := secretfile.KeyPair(cfg.CertFile, cfg.KeyFile); err != nil {
			return nil, fmt.Errorf("the remote signer's client certificate: %w", err)
		}
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := secretfile.KeyPair(cfg.CertFile, cfg.KeyFile)
			return &pair, err
		}
	}
	return t, nil
}

func (c *client) close() {
	c.end()
	c.http.CloseIdleConnections()
}

// do sends a request, with a body unless it is nil, and reads the answer into the value. A
// status other than 200 is a *refusal.
func (c *client) do(ctx context.Context, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	defer context.AfterFunc(c.ended, cancel)()
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	// The transport repeats a request on another connection if the idle one that it chose
	// turns out to be closed. A signature may be made twice, and for this entry, which is not
	// sent, the transport believes it.
	req.Header["Idempotency-Key"] = nil
	token, err := c.authenticate(req)
	if err != nil {
		return away(err)
	}
	resp, err := c.http.Do(req)
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &untrusted):
		return fmt.Errorf("the remote signer's certificate is not trusted: %w", untrusted.Err)
	case err != nil:
		return away(fmt.Errorf("the remote signer cannot be reached: %w", err))
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return away(fmt.Errorf("the remote signer's answer: %w", err))
	case len(answer) > maxAnswer:
		return fmt.Errorf("the remote signer's answer to %s is longer than %d bytes", path, maxAnswer)
	case resp.StatusCode != http.StatusOK:
		return refused(resp.StatusCode, answer, token)
	}
	if err := json.Unmarshal(answer, into); err != nil {
		// The error of package json may repeat what was read.
		return fmt.Errorf("the remote signer's answer to %s is not of the form that its kind has", path)
	}
	return nil
}

// authenticate adds the token to a request, and returns it.
func (c *client) authenticate(req *http.Request) (string, error) {
	if c.token == nil {
		return "", nil
	}
	token, err := c.token()
	if err != nil {
		return "", fmt.Errorf("the remote signer's token: %w", err)
	}
	token = strings.TrimSpace(token)
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("the remote signer's token is empty, or has characters that a token has not")
	}
	c.header(req.Header, token)
	return token, nil
}

// A refusal is an answer of the signer that is not 200.
type refusal struct {
	status int
	said   string // by the signer; not for clients
}

// Error implements error.
func (r *refusal) Error() string {
	what := "answers"
	switch r.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		what = "does not allow that: its token or certificate is missing, has expired, or lacks the right, and it answers"
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		what = "sends requests to another address, where Watchword does not follow: its URL has to name the server that signs, and it answers"
	}
	if r.said == "" {
		return fmt.Sprintf("the remote signer %s %d", what, r.status)
	}
	return fmt.Sprintf("the remote signer %s %d: %s", what, r.status, r.said)
}

// refused makes the error of an answer. Vault says {"errors": ["…"]}, and the contract
// {"error": "…"}. The token is taken out, if the signer has repeated it.
func refused(status int, answer []byte, token string) error {
	var said struct {
		Error  string   `json:"error"`
		Errors []string `json:"errors"`
	}
	_ = json.Unmarshal(answer, &said) // an answer of another form says nothing
	text := strings.Join(append(said.Errors, said.Error), " ")
	if token != "" {
		text = strings.ReplaceAll(text, token, "…")
	}
	text = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, ""), func(r rune) bool { return r <= ' ' || r == 0x7f }), " ")
	if r := []rune(text); len(r) > maxSaid {
		text = string(r[:maxSaid]) + "…"
	}
	err := &refusal{status, text}
	switch {
	case status >= 500,
		status == http.StatusRequestTimeout, status == http.StatusPreconditionFailed,
		status == http.StatusTooEarly, status == http.StatusTooManyRequests:
		return away(err)
	}
	return err
}

// away marks an error as one that may pass.
func away(err error) error { return keysource.ErrKeeperAway.Because(err) }

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
