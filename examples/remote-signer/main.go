// Remote-signer signs Watchword's tokens with keys that Watchword never has, by the contract of
// the kind http in internal/keysource/remote. It is small enough to be read and changed: a
// signer of one's own would ask an HSM or the service of a cloud in place of its files.
//
// A key is a file in PKCS #8, and its name without .pem is the kid. Watchword takes the keys
// in the order of their names, so a name begins with a date. A file that is added is offered
// at once. README.md shows how to make the files, and what to set in Watchword.
//
//	go run ./examples/remote-signer -keys keys -token-file token
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

func main() {
	address := flag.String("address", "127.0.0.1:8300", "where to listen")
	dir := flag.String("keys", "keys", "directory with the private keys")
	tokenFile := flag.String("token-file", "", "file with the bearer token that clients have to show")
	certFile := flag.String("cert", "", "certificate of this server, in PEM; without it there is no TLS, and the address is a loopback one")
	keyFile := flag.String("key", "", "its private key")
	clients := flag.String("client-ca", "", "certificates of the authorities of clients; a client has to show one of theirs")
	flag.Parse()
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	tlsConfig, err := security(*address, *tokenFile, *certFile, *keyFile, *clients)
	if err != nil {
		log.Fatal(err)
	}
	s := &signer{dir: *dir, tokenFile: *tokenFile}
	if err := s.read(); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("signing on %s", listener.Addr())
	if err := serve(ctx, listener, tlsConfig, s.routes()); err != nil {
		log.Fatal(err)
	}
}

// security returns the TLS configuration, or nil without TLS. Somebody who can reach a signer
// that asks for nothing can sign any token.
func security(address, tokenFile, certFile, keyFile, clients string) (*tls.Config, error) {
	if tokenFile == "" && clients == "" {
		return nil, errors.New("clients have to show something: set -token-file, -client-ca, or both")
	}
	if certFile == "" {
		host, _, err := net.SplitHostPort(address)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() || clients != "" {
			return nil, errors.New("without -cert and -key the address is a loopback one, and there is no -client-ca")
		}
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}}
	if clients != "" {
		data, err := os.ReadFile(clients)
		if err != nil {
			return nil, err
		}
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s has no certificate", clients)
		}
	}
	return config, nil
}

// serve answers until ctx ends.
func serve(ctx context.Context, listener net.Listener, tlsConfig *tls.Config, routes http.Handler) error {
	if tlsConfig != nil {
		listener = tls.NewListener(listener, tlsConfig)
	}
	server := &http.Server{Handler: routes, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	drained := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		deadline, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		drained <- server.Shutdown(deadline)
	})
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return err
	}
	return <-drained
}

// A signer has the keys of a directory.
type signer struct {
	dir       string
	tokenFile string

	mu   sync.RWMutex
	keys []privateKey // in the order of their names
}

// A privateKey is one of them.
type privateKey struct {
	public accesstoken.Key
	signer crypto.Signer
}

// read reads the files. After an error the signer has the keys that it had.
func (s *signer) read() error {
	files, err := filepath.Glob(filepath.Join(s.dir, "*.pem")) // sorted
	if err != nil || len(files) == 0 {
		return errors.Join(err, fmt.Errorf("%s has no keys", s.dir))
	}
	var keys []privateKey
	for _, file := range files {
		k, err := readKey(file)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		keys = append(keys, k)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = keys
	return nil
}

// all returns the keys, the oldest first.
func (s *signer) all() []privateKey {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.keys
}

// find returns a key. One that is not known may be a file that was added, which another
// process of this signer has offered already.
func (s *signer) find(kid, algorithm string) (privateKey, bool) {
	for again := range 2 {
		if again == 1 {
			if err := s.read(); err != nil {
				log.Print(err)
				break
			}
		}
		for _, k := range s.all() {
			if k.public.ID == kid && k.public.Algorithm == algorithm {
				return k, true
			}
		}
	}
	return privateKey{}, false
}

func readKey(file string) (privateKey, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return privateKey{}, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return privateKey{}, errors.New("it is not a private key in PEM and PKCS #8")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return privateKey{}, err
	}
	kid := strings.TrimSuffix(filepath.Base(file), ".pem")
	var algorithm string
	switch k := parsed.(type) {
	case *ecdsa.PrivateKey:
		algorithm = map[int]string{256: accesstoken.ES256, 384: accesstoken.ES384, 521: accesstoken.ES512}[k.Params().BitSize]
	case ed25519.PrivateKey:
		algorithm = accesstoken.EdDSA
	case *rsa.PrivateKey: // for one algorithm alone: a verifier has to know which
		algorithm = accesstoken.RS256
		if strings.HasSuffix(kid, "-ps256") {
			algorithm = accesstoken.PS256
		}
	}
	private, ok := parsed.(crypto.Signer)
	if !ok {
		return privateKey{}, errors.New("it cannot sign")
	}
	public, err := accesstoken.NewKey(kid, algorithm, private.Public())
	return privateKey{public, private}, err
}

// routes returns the two routes of the contract.
func (s *signer) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /keys", s.list)
	mux.HandleFunc("POST /sign", s.sign)
	return s.authenticated(mux)
}

// authenticated lets clients through that show the token. A client certificate was checked
// before the request was read.
func (s *signer) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.tokenFile != "" {
			token, err := os.ReadFile(s.tokenFile) // each time, so that it can be replaced
			want := "Bearer " + strings.TrimSpace(string(token))
			if err != nil || want == "Bearer " || subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte(want)) != 1 {
				fail(w, http.StatusUnauthorized, "the bearer token is not the one of this signer")
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func (s *signer) list(w http.ResponseWriter, _ *http.Request) {
	if err := s.read(); err != nil {
		log.Print(err)
		fail(w, http.StatusServiceUnavailable, "the keys cannot be read")
		return
	}
	keys := s.all()
	public := make([]accesstoken.Key, len(keys))
	for i, k := range keys {
		public[i] = k.public
	}
	set, err := accesstoken.NewKeySet(public...)
	if err != nil {
		log.Print(err)
		fail(w, http.StatusServiceUnavailable, "the keys cannot be read")
		return
	}
	answer(w, http.StatusOK, set)
}

func (s *signer) sign(w http.ResponseWriter, r *http.Request) {
	var request struct {
		KeyID     string `json:"kid"`
		Algorithm string `json:"alg"`
		Digest    string `json:"digest"`
		Message   string `json:"message"`
	}
	// A token has 8 KiB at most, and a message is a token without its signature.
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<10)).Decode(&request); err != nil {
		fail(w, http.StatusBadRequest, "the body is not JSON of at most 16 KiB")
		return
	}
	k, ok := s.find(request.KeyID, request.Algorithm)
	if !ok {
		fail(w, http.StatusNotFound, "there is no such key for this algorithm")
		return
	}
	input, opts, err := inputOf(request.Algorithm, request.Digest, request.Message)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	signature, err := k.signer.Sign(rand.Reader, input, opts)
	if err != nil {
		log.Print(err)
		fail(w, http.StatusInternalServerError, "the key cannot sign")
		return
	}
	answer(w, http.StatusOK, map[string]string{"signature": base64.RawURLEncoding.EncodeToString(signature)})
}

// inputOf returns what is signed: the digest, or for EdDSA the message.
func inputOf(algorithm, digest, message string) ([]byte, crypto.SignerOpts, error) {
	var opts crypto.SignerOpts = crypto.SHA256
	switch algorithm {
	case accesstoken.ES384:
		opts = crypto.SHA384
	case accesstoken.ES512:
		opts = crypto.SHA512
	case accesstoken.PS256:
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	case accesstoken.EdDSA:
		input, err := base64.RawURLEncoding.DecodeString(message)
		if err != nil || len(input) == 0 || digest != "" {
			return nil, nil, errors.New("EdDSA signs a message, in base64url without padding")
		}
		return input, crypto.Hash(0), nil
	}
	input, err := base64.RawURLEncoding.DecodeString(digest)
	if err != nil || len(input) != opts.HashFunc().Size() || message != "" {
		return nil, nil, fmt.Errorf("%s signs a digest of %d bytes, in base64url without padding", algorithm, opts.HashFunc().Size())
	}
	return input, opts, nil
}

func fail(w http.ResponseWriter, status int, sentence string) {
	answer(w, status, map[string]string{"error": sentence})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}
