package passkey

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/watchword-auth/watchword/internal/problem"
)

// What a response is refused with. The cause is for the log.
var (
	// ErrMalformed: the response is not what navigator.credentials returns as JSON.
	ErrMalformed = problem.New(problem.Invalid, "malformed_passkey", "the credential is not the JSON form of a PublicKeyCredential")
	// ErrRefused: the response is well formed and proves nothing here and now.
	ErrRefused = problem.New(problem.Unauthenticated, "passkey_refused", "the passkey was not accepted")
	// ErrCounter: the authenticator's counter has not grown since the last use, as when the
	// authenticator was copied.
	ErrCounter = problem.New(problem.Unauthenticated, "passkey_counter", "the passkey was not accepted, because its counter has not grown: it may have been copied")
)

const (
	maxUserHandle = 64   // bytes, WebAuthn §5.4.3
	maxKey        = 1200 // bytes of a public key as COSE: RSA of 8192 bits is accepted
	minRSA        = 256  // bytes of an RSA modulus: 2048 bits
	maxTransports = 8    // WebAuthn §5.8.4 knows six
	maxTransport  = 32   // bytes of one of them
	maxCause      = 300  // bytes of a cause, which may quote what the client sent
)

// A Party is the relying party: the service for which passkeys are made. It is safe for
// concurrent use.
type Party struct{ rp *webauthn.WebAuthn }

// New makes a Party. The error names what is wrong with the configuration.
func New(c Config) (*Party, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	rp, err := webauthn.New(&webauthn.Config{
		RPID:                  c.ID,
		RPDisplayName:         c.Name,
		RPOrigins:             slices.Clone(c.Origins),
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey:        protocol.ResidentKeyRequirementPreferred,
			RequireResidentKey: protocol.ResidentKeyNotRequired(),
			UserVerification:   protocol.VerificationPreferred,
		},
		ExtensionsUnsolicitedOutputPolicy: protocol.UnsolicitedOutputPolicyIgnore,
	})
	if err != nil {
		return nil, err
	}
	return &Party{rp}, nil
}

// A User registers a passkey or logs in with one.
type User struct {
	ID          string // the user handle, as text: 1 to 64 bytes, and never another user's
	Name        string // what the authenticator shows
	DisplayName string
	Credentials []Credential // all passkeys of the user
}

// libraryUser is a User as the library wants one.
type libraryUser struct{ u User }

func (a libraryUser) WebAuthnID() []byte          { return []byte(a.u.ID) }
func (a libraryUser) WebAuthnName() string        { return a.u.Name }
func (a libraryUser) WebAuthnDisplayName() string { return a.u.DisplayName }
func (a libraryUser) WebAuthnCredentials() []webauthn.Credential {
	all := make([]webauthn.Credential, len(a.u.Credentials))
	for i, c := range a.u.Credentials {
		all[i] = c.c
	}
	return all
}

// A Proof is what a login has shown besides the possession of the credential.
type Proof struct {
	// UserVerified reports whether the authenticator has verified its user (PIN, fingerprint),
	// as it had when the credential was registered.
	UserVerified bool
}

// The kinds of ceremonies. The record of one does not finish another.
const (
	registration = "registration"
	login        = "login"
	discoverable = "discoverable"
)

// A record is what the caller keeps of a ceremony.
type record struct {
	Kind    string               `json:"kind"`
	Session webauthn.SessionData `json:"session"`
}

func begun(kind string, session *webauthn.SessionData, options any) (json.RawMessage, []byte, error) {
	// The user's credentials at the end decide, not those at the beginning, which would be
	// up to 27 KiB in the record.
	session.AllowedCredentialIDs = nil
	ceremony, err := json.Marshal(record{kind, *session})
	if err != nil {
		return nil, nil, err
	}
	text, err := json.Marshal(options)
	return text, ceremony, err
}

func continued(kind string, ceremony []byte) (webauthn.SessionData, error) {
	var r record
	if err := json.Unmarshal(ceremony, &r); err != nil {
		return r.Session, fmt.Errorf("the record of the ceremony cannot be read: %w", err)
	}
	if r.Kind != kind {
		return r.Session, ErrRefused.Because(fmt.Errorf("the record is of a ceremony of the kind %q, not %q", r.Kind, kind))
	}
	return r.Session, nil
}

// BeginRegistration returns the options for navigator.credentials.create ({"publicKey":…}),
// and the record of the ceremony. Authenticators that hold one of the user's credentials
// refuse to make another.
func (p *Party) BeginRegistration(u User) (options json.RawMessage, ceremony []byte, err error) {
	if u.ID == "" || len(u.ID) > maxUserHandle {
		return nil, nil, fmt.Errorf("the user's id has %d bytes, which must be 1 to %d in a user handle", len(u.ID), maxUserHandle)
	}
	creation, session, err := p.rp.BeginRegistration(libraryUser{u},
		webauthn.WithExclusions(webauthn.Credentials(libraryUser{u}.WebAuthnCredentials()).CredentialDescriptors()),
		webauthn.WithCredentialParameters(webauthn.CredentialParametersRecommendedL3()))
	if err != nil {
		return nil, nil, err
	}
	return begun(registration, session, creation)
}

// FinishRegistration judges the response and returns the new credential. The caller must see
// to it that no other user has one with the same ID. It returns ErrMalformed or ErrRefused.
func (p *Party) FinishRegistration(u User, ceremony []byte, response json.RawMessage) (Credential, error) {
	session, err := continued(registration, ceremony)
	if err != nil {
		return Credential{}, err
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(response)
	if err != nil {
		return Credential{}, ErrMalformed.Because(explain(err))
	}
	// The library knows more formats, with parsers of certificates from the client.
	switch f := parsed.Response.AttestationObject.Format; protocol.AttestationFormat(f) {
	case protocol.AttestationFormatNone, protocol.AttestationFormatPacked:
	default:
		return Credential{}, ErrRefused.Because(fmt.Errorf("the attestation has the format %.40q, and none was asked for", f))
	}
	if err := checkKey(parsed.Response.AttestationObject.AuthData.AttData.CredentialPublicKey); err != nil {
		return Credential{}, ErrRefused.Because(err)
	}
	c, err := p.rp.CreateCredential(libraryUser{u}, session, parsed)
	if err != nil {
		return Credential{}, ErrRefused.Because(explain(err))
	}
	return kept(*c), nil
}

// checkKey refuses a public key that no login could be verified with, and one that costs too
// much.
func checkKey(cose []byte) error {
	if len(cose) > maxKey {
		return fmt.Errorf("the public key has %d bytes, of which %d are accepted", len(cose), maxKey)
	}
	key, err := webauthncose.ParsePublicKey(cose)
	if err != nil {
		return fmt.Errorf("the public key: %w", err)
	}
	if k, ok := key.(webauthncose.RSAPublicKeyData); ok && len(k.Modulus) < minRSA {
		return fmt.Errorf("the RSA key has %d bytes, and must have %d", len(k.Modulus), minRSA)
	}
	return nil
}

// BeginLogin returns the options for navigator.credentials.get ({"publicKey":…}) with one of
// the user's credentials, and the record of the ceremony. It returns ErrRefused if the user
// has none.
func (p *Party) BeginLogin(u User) (options json.RawMessage, ceremony []byte, err error) {
	if len(u.Credentials) == 0 {
		return nil, nil, ErrRefused.Because(errors.New("the user has no passkey"))
	}
	assertion, session, err := p.rp.BeginLogin(libraryUser{u})
	if err != nil {
		return nil, nil, err
	}
	return begun(login, session, assertion)
}

// FinishLogin judges the response and returns the credential as it is now, which the caller
// must keep. It returns ErrMalformed, ErrRefused or ErrCounter; with ErrCounter the credential
// is returned too, so that its warning can be kept.
func (p *Party) FinishLogin(u User, ceremony []byte, response json.RawMessage) (Credential, Proof, error) {
	return p.finish(login, u, ceremony, response)
}

// BeginDiscoverable returns the options for navigator.credentials.get ({"publicKey":…}) with
// whatever passkey for this service the user has there, the record of the ceremony, and its
// challenge, by which the record can be found again (Peek). The user's verification is
// required.
func (p *Party) BeginDiscoverable() (options json.RawMessage, ceremony []byte, challenge []byte, err error) {
	assertion, session, err := p.rp.BeginDiscoverableLogin(webauthn.WithUserVerification(protocol.VerificationRequired))
	if err != nil {
		return nil, nil, nil, err
	}
	options, ceremony, err = begun(discoverable, session, assertion)
	return options, ceremony, assertion.Response.Challenge, err
}

// FinishDiscoverable is FinishLogin for the user whom the response names, who is logged in
// by it alone: without the user's verification it returns ErrRefused.
func (p *Party) FinishDiscoverable(u User, ceremony []byte, response json.RawMessage) (Credential, Proof, error) {
	c, proof, err := p.finish(discoverable, u, ceremony, response)
	if err == nil && !proof.UserVerified {
		return Credential{}, Proof{}, ErrRefused.Because(errors.New("the credential was registered without the user's verification, so that it does not count now"))
	}
	return c, proof, err
}

func (p *Party) finish(kind string, u User, ceremony []byte, response json.RawMessage) (Credential, Proof, error) {
	session, err := continued(kind, ceremony)
	if err != nil {
		return Credential{}, Proof{}, err
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(response)
	if err != nil {
		return Credential{}, Proof{}, ErrMalformed.Because(explain(err))
	}
	user := libraryUser{u}
	var c *webauthn.Credential
	if kind == discoverable {
		_, c, err = p.rp.ValidatePasskeyLogin(func([]byte, []byte) (webauthn.User, error) { return user, nil }, session, parsed)
	} else {
		c, err = p.rp.ValidateLogin(user, session, parsed)
	}
	if err != nil {
		return Credential{}, Proof{}, ErrRefused.Because(explain(err))
	}
	before := u.Credentials[slices.IndexFunc(u.Credentials, func(b Credential) bool { return string(b.c.ID) == string(c.ID) })]
	now := parsed.Response.AuthenticatorData
	after := kept(*c)
	// The library sets the warning and never lifts it. Only what this response says counts.
	if seen := before.c.Authenticator.SignCount; now.Counter <= seen && (now.Counter != 0 || seen != 0) {
		return after, Proof{}, ErrCounter.Because(fmt.Errorf("the counter is %d, and was %d", now.Counter, seen))
	}
	return after, Proof{UserVerified: now.Flags.HasUserVerified() && before.c.Flags.UserVerified}, nil
}

// Claimed is what a response to the options of a login says. Nothing of it is verified.
type Claimed struct {
	Challenge    []byte
	CredentialID []byte
	UserHandle   string // empty if the response has none
}

// Peek reads a response to the options of a login. It returns ErrMalformed.
func Peek(response json.RawMessage) (Claimed, error) {
	parsed, err := protocol.ParseCredentialRequestResponseBytes(response)
	if err != nil {
		return Claimed{}, ErrMalformed.Because(explain(err))
	}
	challenge, err := base64.RawURLEncoding.Strict().DecodeString(parsed.Response.CollectedClientData.Challenge)
	if err != nil {
		return Claimed{}, ErrMalformed.Because(fmt.Errorf("the challenge: %w", err))
	}
	return Claimed{challenge, parsed.RawID, string(parsed.Response.UserHandle)}, nil
}

// explain says what the library means by its error: it keeps the half of it apart.
func explain(err error) error {
	text := err.Error()
	var e *protocol.Error
	if errors.As(err, &e) && e.DevInfo != "" {
		text += ": " + e.DevInfo
	}
	if len(text) > maxCause {
		text = text[:maxCause] + "…"
	}
	return errors.New(text)
}
