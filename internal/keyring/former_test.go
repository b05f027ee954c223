package keyring

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// formerKey puts a key into the store as the version before did: sealed without its bounds, and
// without a MAC.
func formerKey(t *testing.T, s store.Store, now time.Time) store.Key {
	t.Helper()
	private, err := token.GenerateKey(rand.Reader, accesstoken.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	public := accesstoken.Key{Algorithm: accesstoken.EdDSA, Public: private.Public()}
	public.ID = "auth-0-" + public.Thumbprint()
	der, err := x509.MarshalPKCS8PrivateKey(crypto.PrivateKey(private))
	if err != nil {
		t.Fatal(err)
	}
	k := testPolicy.date(store.Key{ID: public.ID, Instance: "auth-0", Algorithm: accesstoken.EdDSA}, now, now)
	k.Sealed = newBox(t, 1).Seal(der, "signing_keys/"+k.ID)
	if k.PublicJWK, err = public.MarshalJSON(); err != nil {
		t.Fatal(err)
	}
	if err := s.CreateKey(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	return k
}

func adopt(t *testing.T, s store.Store, c *clock) (kids []string) {
	t.Helper()
	if err := s.Update(t.Context(), func(r store.Records) (err error) {
		kids, err = AdoptIn(context.Background(), r, keysource.Sealed{Box: newBox(t, 1)}, c.Now(), testPolicy.longest())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return kids
}

// A replica alone does not start on the keys of an older version, since nothing authenticates
// their rows, until an operator has adopted or revoked them. Adopted, they sign on.
func TestKeysOfAnOlderVersion(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	cfg := testConfig(t, s, c)
	k := formerKey(t, s, c.Now())
	k.RemoveAt = k.RemoveAt.AddDate(10, 0, 0) // by somebody else
	if err := s.UpdateKey(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "keys adopt") || !strings.Contains(err.Error(), k.ID) {
		t.Fatalf("it starts: %v", err)
	}
	if kids := adopt(t, s, c); len(kids) != 1 || kids[0] != k.ID {
		t.Fatalf("adopted: %v", kids)
	}
	r := open(t, cfg)
	if got := signing(t, r); got != k.ID {
		t.Errorf("%q signs", got)
	}
	if end := r.Published()[0].Row.RemoveAt; end.After(c.Now().Add(testPolicy.longest())) {
		t.Errorf("it lives until %v", end)
	}
	if kids := adopt(t, s, c); len(kids) != 0 {
		t.Errorf("adopted twice: %v", kids)
	}
}

func TestRevokedInsteadOfAdopted(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	k := formerKey(t, s, c.Now())
	revoke(t, s, k.ID, c.Now())
	if got := signing(t, open(t, testConfig(t, s, c))); got == k.ID || got == "" {
		t.Errorf("%q signs", got)
	}
	if kids := adopt(t, s, c); len(kids) != 0 {
		t.Errorf("adopted: %v", kids)
	}
}

// A row of this version, whose MACs somebody has removed, does not become one of the version
// before. Nor does one of the version before come in beside those of this one.
func TestNoRowBecomesOneOfAnOlderVersion(t *testing.T) {
	s, c := newStore(t), &clock{now: start}
	cfg := testConfig(t, s, c)
	r := open(t, cfg)
	stripped := row(t, s, signing(t, r))
	stripped.MAC, stripped.StateMAC, stripped.SourceMAC = nil, nil, nil
	live(t, r, c, time.Second)
	added := formerKey(t, s, c.Now())
	live(t, r, c, 2*time.Second)
	if _, ok := r.Key(added.ID); ok || value(t, r.metrics.rejected, rejectedFormer) != 1 {
		t.Errorf("published: %v", ok)
	}
	if after := open(t, cfg); after.Public().Len() != 1 {
		t.Errorf("a process that starts publishes %d keys", after.Public().Len())
	}
	if err := s.DeleteKey(t.Context(), added.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.UpdateKey(t.Context(), stripped); err != nil {
		t.Fatal(err)
	}
	if kids := adopt(t, s, c); len(kids) != 0 {
		t.Errorf("adopted: %v", kids)
	}
	if _, ok := open(t, cfg).Key(stripped.ID); ok {
		t.Error("a row without MACs is believed")
	}
}

// In a cluster whose other replicas still run the older version, and vouch for its key, a
// replica of this version makes a key of its own.
func TestOlderVersionInTheCluster(t *testing.T) {
	s, c, peers := newStore(t), &clock{now: start}, &fakePeers{any: true, have: map[string]bool{}}
	k := peers.Authenticate(formerKey(t, s, c.Now()))
	if err := s.UpdateKey(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, s, c)
	cfg.Peers = peers
	r := open(t, cfg)
	if got := signing(t, r); got != "" {
		t.Errorf("%q signs at once", got)
	}
	for _, row := range rows(t, s) {
		peers.have[row.ID] = true
		if row.ID == k.ID && (row.SourceMAC != nil || !peers.Vouched(row)) {
			t.Errorf("the row of the older version was changed: %+v", row)
		}
	}
	live(t, r, c, testPolicy.ripen()+2*time.Second)
	if got := signing(t, r); got == k.ID || got == "" {
		t.Errorf("%q signs", got)
	}
}
