package cluster

import (
	"context"

	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// Alone is what a Cluster is for a replica that is in none: there are no other replicas,
// and no keys but its own.
type Alone struct {
	keyring.Alone
	local Local
}

// Serve sets the keys. It is called once, before Keys and Find.
func (a *Alone) Serve(local Local) { a.local = local }

// Keys returns the keys of this replica.
func (a *Alone) Keys() *accesstoken.KeySet { return a.local.Public() }

// Find returns the key of a token. The error is accesstoken.ErrUnknownKey.
func (a *Alone) Find(kid string) (accesstoken.Key, error) { return a.Keys().Find(kid) }

// Others returns no replicas.
func (*Alone) Others() []discovery.Peer { return nil }

// Live returns 1.
func (*Alone) Live() int { return 1 }

// Ready returns nil.
func (*Alone) Ready() error { return nil }

// Accepted returns true: there is no other replica.
func (*Alone) Accepted(string) bool { return true }

// SecretsChanged does nothing.
func (*Alone) SecretsChanged() {}

// SettingsChanged does nothing.
func (*Alone) SettingsChanged(string) {}

// View returns ErrAlone.
func (*Alone) View(context.Context) (View, error) { return View{}, ErrAlone }

// AnswerKeys returns ErrAlone: there are no peers.
func (*Alone) AnswerKeys(string) (body []byte, instance, mac string, err error) {
	return nil, "", "", ErrAlone
}

// AnswerFeed returns ErrAlone.
func (*Alone) AnswerFeed(string, string, int64, []byte) (instance, mac string, err error) {
	return "", "", ErrAlone
}

// AnswerToken returns ErrAlone.
func (*Alone) AnswerToken(string, TokenQuestion, func(string) (bool, error)) (body []byte, instance, mac string, err error) {
	return nil, "", "", ErrAlone
}

// Accepts returns ErrAlone.
func (*Alone) Accepts(context.Context, discovery.Peer, string) (bool, error) {
	return false, ErrAlone
}

// AnswerExamination returns ErrAlone.
func (*Alone) AnswerExamination(context.Context, string, ExamineQuestion, func(context.Context, []byte) ([]byte, error)) (body []byte, instance, mac string, err error) {
	return nil, "", "", ErrAlone
}

// NoSigner returns the error of Ring.Signer as it is.
func (*Alone) NoSigner(err error) error { return err }

// Leave does nothing.
func (*Alone) Leave(context.Context) error { return nil }
