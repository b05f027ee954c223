package passkey

import (
	"encoding/json"
	"errors"
	"slices"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
)

// A Credential is a passkey as the service knows it: what it is called, its public key, how
// it was made, and its counter. Its JSON form is all of it.
type Credential struct{ c webauthn.Credential }

// kept returns the credential as it is kept: without the attestation, which nobody asked
// for, and without what does not survive JSON.
func kept(c webauthn.Credential) Credential {
	c.Attestation = webauthn.CredentialAttestation{}
	f := c.Flags
	c.Flags = webauthn.CredentialFlags{UserPresent: f.UserPresent, UserVerified: f.UserVerified, BackupEligible: f.BackupEligible, BackupState: f.BackupState}
	// Transports are whatever text the client sent; the options of a login repeat them.
	transports := slices.DeleteFunc(slices.Clone(c.Transport), func(t protocol.AuthenticatorTransport) bool { return t == "" || len(t) > maxTransport })
	slices.Sort(transports)
	transports = slices.Compact(transports)
	c.Transport = transports[:min(len(transports), maxTransports)]
	if len(c.Transport) == 0 {
		c.Transport = nil
	}
	return Credential{c}
}

// ID is the credential's identifier, which the authenticator chose: 1 to 1023 bytes.
func (c Credential) ID() []byte { return slices.Clone(c.c.ID) }

// Synced reports whether the credential may leave the device on which it was made, as those
// of password managers do. It never changes.
func (c Credential) Synced() bool { return c.c.Flags.BackupEligible }

// UserVerified reports whether the authenticator verified its user when the credential was
// registered. Only such a credential logs in by itself.
func (c Credential) UserVerified() bool { return c.c.Flags.UserVerified }

// CloneWarning reports whether the counter has ever failed to grow.
func (c Credential) CloneWarning() bool { return c.c.Authenticator.CloneWarning }

// SignCount is the authenticator's counter at the last accepted use; 0 if it has none.
func (c Credential) SignCount() uint32 { return c.c.Authenticator.SignCount }

// Transports are the ways to reach the authenticator, as the browser named them.
func (c Credential) Transports() []string {
	all := make([]string, len(c.c.Transport))
	for i, t := range c.c.Transport {
		all[i] = string(t)
	}
	return all
}

// MarshalJSON returns all of the credential.
func (c Credential) MarshalJSON() ([]byte, error) { return json.Marshal(c.c) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (c *Credential) UnmarshalJSON(text []byte) error {
	var read webauthn.Credential
	if err := json.Unmarshal(text, &read); err != nil {
		return err
	}
	if len(read.ID) == 0 || len(read.PublicKey) == 0 {
		return errors.New("a credential without an id or a key")
	}
	c.c = read
	return nil
}
