package testenv

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// A Kubernetes is the API of a Kubernetes cluster without nodes and without controllers.
type Kubernetes struct {
	*Server
	Token  string       // of an administrator
	CA     []byte       // what the API's certificate is checked against, PEM
	Client *http.Client // which does so
}

// StartKubernetes starts a kube-apiserver, whose program is given, and its etcd for this test.
func StartKubernetes(t testing.TB, apiserver string) *Kubernetes {
	t.Helper()
	etcd := newServer(t, "etcd", "KILL")
	peers := freeAddr(t)
	etcd.command = func() []string {
		return []string{
			program(t, "etcd"), "--data-dir=" + filepath.Join(etcd.dir, "data"), "--unsafe-no-fsync",
			"--listen-client-urls=http://" + etcd.Addr, "--advertise-client-urls=http://" + etcd.Addr,
			"--listen-peer-urls=http://" + peers, "--initial-advertise-peer-urls=http://" + peers, "--initial-cluster=default=http://" + peers,
		}
	}
	etcd.answers = func(ctx context.Context) error {
		return answersWith200(ctx, http.DefaultClient, "http://"+etcd.Addr+"/health", "")
	}
	etcd.Start(t)
	t.Cleanup(etcd.Stop)

	k := &Kubernetes{Server: newServer(t, "apiserver", "KILL"), Token: rand.Text()}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	accounts := k.write(t, "accounts.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})))
	tokens := k.write(t, "tokens.csv", fmt.Sprintf("%s,admin,admin,system:masters\n", k.Token))
	k.command = func() []string {
		return []string{
			apiserver, "--etcd-servers=http://" + etcd.Addr, "--bind-address=127.0.0.1", "--secure-port=" + k.port(), "--cert-dir=" + filepath.Join(k.dir, "certs"),
			"--authorization-mode=RBAC", "--token-auth-file=" + tokens, "--service-cluster-ip-range=10.96.0.0/16",
			"--service-account-issuer=https://kubernetes.test", "--service-account-key-file=" + accounts, "--service-account-signing-key-file=" + accounts,
		}
	}
	k.answers = func(ctx context.Context) error {
		certificate, err := os.ReadFile(filepath.Join(k.dir, "certs", "apiserver.crt"))
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(certificate)
		k.CA, k.URL = certificate, "https://"+k.Addr
		k.Client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
		return answersWith200(ctx, k.Client, k.URL+"/readyz", k.Token)
	}
	k.Start(t)
	t.Cleanup(k.Stop)
	return k
}

// answersWith200 returns an error unless a GET is answered with 200.
func answersWith200(ctx context.Context, client *http.Client, url, token string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is answered %s", url, answer.Status)
	}
	return nil
}
