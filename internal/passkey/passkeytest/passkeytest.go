// Package passkeytest is a browser with an authenticator in software, for tests: it answers
// the options of a ceremony as navigator.credentials does, or with whatever a test changes.
// It shares no code with the library that judges the answers.
package passkeytest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// The algorithms, as COSE numbers them.
const (
	ES256 = -7
	EdDSA = -8
	RS256 = -257
)

// The flags of authenticator data.
const (
	Present        = 0x01
	Verified       = 0x04
	BackupEligible = 0x08
	BackedUp       = 0x10
	attested       = 0x40
)

// An Authenticator holds credentials. The zero value with an Origin is a security key without
// a PIN that counts. It is for one goroutine.
type Authenticator struct {
	Origin     string // of the page
	Algorithm  int    // of new credentials; 0: ES256
	Verifies   bool   // it verifies its user
	Synced     bool   // its credentials are backed up, and it does not count
	Transports []string
	// Change may change what is about to be answered, before it is signed.
	Change func(*Answer)
	// Held are its credentials, oldest first.
	Held []*Credential
}

// A Credential is what an Authenticator keeps.
type Credential struct {
	ID, UserHandle []byte
	RPID           string
	Counter        uint32
	key            crypto.Signer
	algorithm      int
}

// An Answer is what an Authenticator answers.
type Answer struct {
	ClientData map[string]any
	RPID       string // whose hash is in the authenticator data
	Flags      byte
	Counter    uint32
	ID         []byte // the credential's
	Key        []byte // COSE; of a registration
	AAGUID     [16]byte
	Format     string // of the attestation
	// Statement makes the attestation statement in CBOR from the data to be signed.
	Statement  func(signed []byte) []byte
	UserHandle []byte // of a login
	Signature  func(signed []byte) []byte
	// Extensions are clientExtensionResults.
	Extensions map[string]any
}

type descriptor struct {
	ID string `json:"id"`
}

type options struct {
	PublicKey struct {
		Challenge string `json:"challenge"`
		RPID      string `json:"rpId"`
		RP        struct {
			ID string `json:"id"`
		} `json:"rp"`
		User struct {
			ID string `json:"id"`
		} `json:"user"`
		Params []struct {
			Alg int `json:"alg"`
		} `json:"pubKeyCredParams"`
		Exclude   []descriptor `json:"excludeCredentials"`
		Allow     []descriptor `json:"allowCredentials"`
		Verify    string       `json:"userVerification"`
		Selection struct {
			Verify string `json:"userVerification"`
		} `json:"authenticatorSelection"`
	} `json:"publicKey"`
}

// ErrNotAllowed is the NotAllowedError or InvalidStateError of a browser: there is no
// credential that may be used, or there is one already.
var ErrNotAllowed = errors.New("not allowed")

// Create answers the options of a registration and keeps the credential.
func (a *Authenticator) Create(text json.RawMessage) (json.RawMessage, error) {
	var o options
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, err
	}
	handle, err := base64.RawURLEncoding.DecodeString(o.PublicKey.User.ID)
	if err != nil {
		return nil, err
	}
	for _, held := range a.Held {
		if slices.Contains(o.PublicKey.Exclude, descriptor{encode(held.ID)}) {
			return nil, fmt.Errorf("excluded: %w", ErrNotAllowed)
		}
	}
	if o.PublicKey.Selection.Verify == "required" && !a.Verifies {
		return nil, fmt.Errorf("verification: %w", ErrNotAllowed)
	}
	c := &Credential{ID: random(32), UserHandle: handle, RPID: o.PublicKey.RP.ID, algorithm: a.Algorithm}
	if c.algorithm == 0 {
		c.algorithm = ES256
	}
	if !slices.ContainsFunc(o.PublicKey.Params, func(p struct {
		Alg int `json:"alg"`
	}) bool {
		return p.Alg == c.algorithm
	}) {
		return nil, fmt.Errorf("algorithm %d: %w", c.algorithm, ErrNotAllowed)
	}
	if err := c.generate(); err != nil {
		return nil, err
	}
	answer := a.answer("webauthn.create", o.PublicKey.Challenge, c)
	answer.Flags |= attested
	answer.Key = c.cose()
	answer.Format = "none"
	answer.Statement = func([]byte) []byte { return Map() }
	if a.Change != nil {
		a.Change(answer)
	}
	client, data := answer.signed()
	hash := sha256.Sum256(client)
	object := Map(Text("fmt"), Text(answer.Format), Text("attStmt"), answer.Statement(slices.Concat(data, hash[:])), Text("authData"), Bytes(data))
	a.Held = append(a.Held, c)
	return a.response(answer, map[string]any{"clientDataJSON": encode(client), "attestationObject": encode(object), "transports": a.Transports}), nil
}

// Get answers the options of a login with the newest credential that may be used.
func (a *Authenticator) Get(text json.RawMessage) (json.RawMessage, error) {
	var o options
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, err
	}
	if o.PublicKey.Verify == "required" && !a.Verifies {
		return nil, fmt.Errorf("verification: %w", ErrNotAllowed)
	}
	for _, c := range slices.Backward(a.Held) {
		allowed := len(o.PublicKey.Allow) == 0 || slices.Contains(o.PublicKey.Allow, descriptor{encode(c.ID)})
		if c.RPID != o.PublicKey.RPID || !allowed {
			continue
		}
		if !a.Synced {
			c.Counter++
		}
		answer := a.answer("webauthn.get", o.PublicKey.Challenge, c)
		answer.UserHandle = c.UserHandle
		if a.Change != nil {
			a.Change(answer)
		}
		client, data := answer.signed()
		hash := sha256.Sum256(client)
		response := map[string]any{"clientDataJSON": encode(client), "authenticatorData": encode(data), "signature": encode(answer.Signature(slices.Concat(data, hash[:])))}
		if answer.UserHandle != nil {
			response["userHandle"] = encode(answer.UserHandle)
		}
		return a.response(answer, response), nil
	}
	return nil, fmt.Errorf("no credential: %w", ErrNotAllowed)
}

func (a *Authenticator) answer(kind, challenge string, c *Credential) *Answer {
	flags := byte(Present)
	if a.Verifies {
		flags |= Verified
	}
	if a.Synced {
		flags |= BackupEligible | BackedUp
	}
	return &Answer{
		ClientData: map[string]any{"type": kind, "challenge": challenge, "origin": a.Origin, "crossOrigin": false},
		RPID:       c.RPID, Flags: flags, Counter: c.Counter, ID: c.ID, Extensions: map[string]any{},
		Signature: c.Sign,
	}
}

// signed returns the client data and the authenticator data, over which is signed.
func (a *Answer) signed() (client, data []byte) {
	client, err := json.Marshal(a.ClientData)
	if err != nil {
		panic(err)
	}
	rp := sha256.Sum256([]byte(a.RPID))
	data = append(rp[:], a.Flags)
	data = binary.BigEndian.AppendUint32(data, a.Counter)
	if a.Key != nil {
		data = append(data, a.AAGUID[:]...)
		data = binary.BigEndian.AppendUint16(data, uint16(len(a.ID)))
		data = slices.Concat(data, a.ID, a.Key)
	}
	return client, data
}

func (a *Authenticator) response(answer *Answer, response map[string]any) json.RawMessage {
	text, err := json.Marshal(map[string]any{
		"id": encode(answer.ID), "rawId": encode(answer.ID), "type": "public-key", "response": response,
		"authenticatorAttachment": "platform", "clientExtensionResults": answer.Extensions,
	})
	if err != nil {
		panic(err)
	}
	return text
}

func (c *Credential) generate() (err error) {
	switch c.algorithm {
	case ES256:
		c.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case EdDSA:
		_, c.key, err = ed25519.GenerateKey(rand.Reader)
	case RS256:
		c.key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		err = fmt.Errorf("algorithm %d is not known", c.algorithm)
	}
	return err
}

// Sign signs as the credential's algorithm wants it.
func (c *Credential) Sign(data []byte) []byte {
	digest, hash := data, crypto.Hash(0)
	if c.algorithm != EdDSA {
		sum := sha256.Sum256(data)
		digest, hash = sum[:], crypto.SHA256
	}
	signature, err := c.key.Sign(rand.Reader, digest, hash)
	if err != nil {
		panic(err)
	}
	return signature
}

func (c *Credential) cose() []byte {
	switch k := c.key.Public().(type) {
	case *ecdsa.PublicKey:
		point, err := k.Bytes() // 4, x, y
		if err != nil {
			panic(err)
		}
		return Map(Int(1), Int(2), Int(3), Int(ES256), Int(-1), Int(1), Int(-2), Bytes(point[1:33]), Int(-3), Bytes(point[33:]))
	case ed25519.PublicKey:
		return Map(Int(1), Int(1), Int(3), Int(EdDSA), Int(-1), Int(6), Int(-2), Bytes(k))
	case *rsa.PublicKey:
		return Map(Int(1), Int(3), Int(3), Int(RS256), Int(-1), Bytes(k.N.Bytes()), Int(-2), Bytes([]byte{1, 0, 1}))
	}
	panic("no such key")
}

// Map, Text, Bytes and Int are CBOR (RFC 8949), as much of it as is needed here.

// Map is a map of keys and values in turn.
func Map(items ...[]byte) []byte { return append(head(5, len(items)/2), bytes.Join(items, nil)...) }

// Array is an array.
func Array(items ...[]byte) []byte { return append(head(4, len(items)), bytes.Join(items, nil)...) }

// Text is a text string.
func Text(s string) []byte { return append(head(3, len(s)), s...) }

// Bytes is a byte string.
func Bytes(b []byte) []byte { return append(head(2, len(b)), b...) }

// Int is an integer.
func Int(n int) []byte {
	if n < 0 {
		return head(1, -1-n)
	}
	return head(0, n)
}

func head(major byte, n int) []byte {
	switch {
	case n < 24:
		return []byte{major<<5 | byte(n)}
	case n < 1<<8:
		return []byte{major<<5 | 24, byte(n)}
	default:
		return []byte{major<<5 | 25, byte(n >> 8), byte(n)}
	}
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
