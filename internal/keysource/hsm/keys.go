//go:build pkcs11 && cgo

package hsm

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/miekg/pkcs11"

	"github.com/watchword-auth/watchword/internal/keysource"
)

// A keyError says why a key cannot be used, now or later.
type keyError struct{ text string }

func (e *keyError) Error() string { return e.text }

const (
	maxKeys = 1000 // of the label; more are not a set of signing keys
	maxID   = 100  // bytes of a CKA_ID; as Ref it is twice as long
)

// A key is a private key on the token. It implements crypto.Signer.
type key struct {
	device    *device
	algorithm *algorithm
	id        []byte // CKA_ID
	public    crypto.PublicKey
	place     atomic.Pointer[place]
}

// A place is where a connection has the key.
type place struct {
	conn   *connection
	handle pkcs11.ObjectHandle
}

// Public implements crypto.Signer.
func (k *key) Public() crypto.PublicKey { return k.public }

// Sign implements crypto.Signer. The randomness is the token's own.
func (k *key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.sign(context.Background(), digest, opts) // do bounds each wait
}

func (k *key) sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	input, err := k.algorithm.input(digest, opts)
	if err != nil {
		return nil, err
	}
	err = k.device.do(ctx, func(c *connection, s pkcs11.SessionHandle) (err error) {
		at := k.place.Load()
		if at == nil || at.conn != c {
			if at, err = k.locate(c, s); err != nil {
				return err
			}
			k.place.Store(at)
		}
		lib := k.device.module.lib
		if err = lib.SignInit(s, k.algorithm.mechanism(), at.handle); err == nil {
			signature, err = lib.Sign(s, input)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("the key %s of the HSM: %w", hex.EncodeToString(k.id), err)
	}
	return k.algorithm.output(signature)
}

// locate finds the private key anew. Its public half must still be the same.
func (k *key) locate(c *connection, s pkcs11.SessionHandle) (*place, error) {
	private, err := k.device.objects(s, pkcs11.CKO_PRIVATE_KEY, k.algorithm.keyType, k.id)
	if err != nil {
		return nil, err
	}
	if len(private) != 1 {
		return nil, errGone
	}
	public, err := k.device.publicHalf(s, k.algorithm, k.id)
	if err != nil {
		return nil, err
	}
	if same, ok := k.public.(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(public) {
		return nil, errGone // another one has its id
	}
	return &place{c, private[0]}, nil
}

// prove makes a signature and verifies it.
func (k *key) prove(ctx context.Context) error {
	digest := []byte("Watchword asks a key whether it signs.")
	if h := k.algorithm.hash; h != 0 {
		hash := h.New()
		hash.Write(digest)
		digest = hash.Sum(nil)
	}
	signature, err := k.sign(ctx, digest, k.algorithm.options())
	if err != nil {
		return err
	}
	if !k.algorithm.verifies(k.public, digest, signature) {
		return &keyError{"its public half does not belong to its private half"}
	}
	return nil
}

// Keys implements keysource.Keeper. Keys that Create has made stand behind all others, in the
// order in which they were made. The error is keysource.ErrGone if there is none.
func (d *device) Keys(ctx context.Context, name string) ([]keysource.Kept, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a, err := algorithmOf(name)
	if err != nil {
		return nil, err
	}
	var keys []*key
	var passed, kinds []string // those that cannot be used, and algorithms of other keys
	var label string
	err = d.do(ctx, func(c *connection, s pkcs11.SessionHandle) error {
		keys, passed, kinds, label = nil, nil, nil, c.name
		if err := d.offers(c, a.sign, pkcs11.CKF_SIGN, a.name); err != nil {
			return err
		}
		for _, other := range algorithms {
			found, why, err := d.list(s, other)
			switch {
			case err != nil:
				return err
			case other == a:
				keys, passed = found, why
			case len(found) > 0:
				kinds = append(kinds, other.name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var all []keysource.Kept
	var last *key
	for _, k := range keys {
		der, err := x509.MarshalPKIXPublicKey(k.public)
		if err != nil {
			return nil, err
		}
		id := a.name + " " + string(k.id) + string(der)
		d.mu.Lock()
		proven := d.proven[id]
		d.mu.Unlock()
		if !proven {
			err := k.prove(ctx)
			if err != nil && !isFinal(err) {
				return nil, err
			}
			if err != nil {
				passed = append(passed, fmt.Sprintf("the key %s: %v", hex.EncodeToString(k.id), err))
				continue
			}
			d.mu.Lock()
			d.proven[id] = true
			d.mu.Unlock()
		}
		last = k
		all = append(all, keysource.Kept{Signer: k, Ref: hex.EncodeToString(k.id)})
	}
	d.mu.Lock()
	d.last = last
	for _, p := range passed {
		if !d.warned[p] {
			d.warned[p] = true
			d.cfg.Logger.WarnContext(ctx, "a key of the HSM is not used", "reason", p)
		}
	}
	d.mu.Unlock()
	what := fmt.Sprintf("with the label %q for %s on the token %q", d.cfg.Key, a.name, label)
	switch {
	case len(all) > 0:
		return all, nil
	case len(passed) > 0:
		return nil, fmt.Errorf("no key %s can be used: %s", what, list(passed))
	case len(kinds) > 0:
		return nil, missing("there is no key %s, only for %s: set tokens.algorithm, or make a key with \"watchword keys create --pkcs11\"", what, list(kinds))
	}
	return nil, missing("there is no key %s: make one with \"watchword keys create --pkcs11\"", what)
}

// A missingError is keysource.ErrGone, in words of its own.
type missingError struct{ error }

func missing(format string, args ...any) error { return missingError{fmt.Errorf(format, args...)} }

func (missingError) Is(target error) bool { return target == keysource.ErrGone }

// offers returns an error if the token does not offer a mechanism.
func (d *device) offers(c *connection, mechanism, flag uint, algorithm string) error {
	info, err := d.module.lib.GetMechanismInfo(c.slot, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)})
	if err == nil && info.Flags&flag != 0 || is(err, pkcs11.CKR_FUNCTION_NOT_SUPPORTED) {
		return nil
	}
	if err != nil && !isFinal(err) {
		return err
	}
	return &keyError{fmt.Sprintf("the token %q does not offer %s: set tokens.algorithm to one that it has", c.name, algorithm)}
}

// list returns the keys of an algorithm, and why others of its kind cannot be used.
func (d *device) list(s pkcs11.SessionHandle, a *algorithm) (keys []*key, passed []string, err error) {
	handles, err := d.objects(s, pkcs11.CKO_PRIVATE_KEY, a.keyType, nil)
	if err != nil {
		return nil, nil, err
	}
	seen := map[string]int{}
	for _, h := range handles {
		id, err := d.value(s, h, pkcs11.CKA_ID)
		if err != nil {
			return nil, nil, err
		}
		seen[string(id)]++
		if seen[string(id)] > 1 {
			continue // counted
		}
		public, err := d.publicHalf(s, a, id)
		if err == nil && public == nil {
			continue // of another curve
		}
		if err == nil {
			err = d.usable(s, h, id)
		}
		var unfit *keyError
		if errors.As(err, &unfit) {
			passed = append(passed, fmt.Sprintf("the key with the id %q %s", hex.EncodeToString(id), unfit.text))
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		keys = append(keys, &key{device: d, algorithm: a, id: id, public: public})
	}
	keys = slices.DeleteFunc(keys, func(k *key) bool {
		if seen[string(k.id)] == 1 {
			return false
		}
		passed = append(passed, fmt.Sprintf("the id %q belongs to several keys", hex.EncodeToString(k.id)))
		return true
	})
	slices.SortFunc(keys, func(x, y *key) int {
		return cmp.Or(cmp.Compare(created(x.id), created(y.id)), bytes.Compare(x.id, y.id))
	})
	return keys, passed, nil
}

// created is 1 if Create has made the id, which then begins with the time.
func created(id []byte) int {
	if u, err := uuid.FromBytes(id); err == nil && u.Version() == 7 {
		return 1
	}
	return 0
}

// usable returns a *keyError if a private key cannot sign here.
func (d *device) usable(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, id []byte) error {
	if len(id) == 0 || len(id) > maxID {
		return &keyError{fmt.Sprintf("cannot be distinguished from other keys: a CKA_ID has 1 to %d bytes", maxID)}
	}
	if v, err := d.value(s, h, pkcs11.CKA_SIGN); err != nil {
		return err
	} else if !set(v) {
		return &keyError{"is not for signatures (CKA_SIGN)"}
	}
	if v, err := d.value(s, h, pkcs11.CKA_ALWAYS_AUTHENTICATE); err == nil && set(v) { // not every token has it
		return &keyError{"wants the PIN for each signature (CKA_ALWAYS_AUTHENTICATE)"}
	}
	if v, err := d.value(s, h, pkcs11.CKA_EXTRACTABLE); err == nil && set(v) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if !d.warned[string(id)] {
			d.warned[string(id)] = true
			d.cfg.Logger.Warn("a signing key can leave the HSM, because it was made as extractable", "id", hex.EncodeToString(id))
		}
	}
	return nil
}

func set(value []byte) bool { return len(value) > 0 && value[0] != 0 }

// publicHalf returns the public key with an id. It is nil if that is one of another algorithm.
func (d *device) publicHalf(s pkcs11.SessionHandle, a *algorithm, id []byte) (crypto.PublicKey, error) {
	handles, err := d.objects(s, pkcs11.CKO_PUBLIC_KEY, a.keyType, id)
	if err != nil {
		return nil, err
	}
	if len(handles) != 1 {
		return nil, &keyError{fmt.Sprintf("has %d public halves of the same label and id on the token, not one", len(handles))}
	}
	values, err := d.module.lib.GetAttributeValue(s, handles[0], a.attributes())
	if err != nil {
		return nil, err
	}
	public, err := a.public(values[0].Value, values[1].Value)
	if err != nil {
		return nil, &keyError{"cannot be used: " + err.Error()}
	}
	return public, nil
}

// objects returns the keys of a class and a type with the label of the Config, and with an
// id, unless it is nil.
func (d *device) objects(s pkcs11.SessionHandle, class, keyType uint, id []byte) (all []pkcs11.ObjectHandle, err error) {
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, d.cfg.Key),
	}
	if id != nil {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, id))
	}
	lib := d.module.lib
	if err := lib.FindObjectsInit(s, template); err != nil {
		return nil, err
	}
	for len(all) < maxKeys {
		found, _, err := lib.FindObjects(s, 100)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			break
		}
		all = append(all, found...)
	}
	return all, lib.FindObjectsFinal(s)
}

// value returns an attribute of an object.
func (d *device) value(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, attribute uint) ([]byte, error) {
	values, err := d.module.lib.GetAttributeValue(s, h, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
	if err != nil {
		return nil, err
	}
	return values[0].Value, nil
}

// Create implements Token.
func (d *device) Create(ctx context.Context, name string) (keysource.Kept, error) {
	a, err := algorithmOf(name)
	if err != nil {
		return keysource.Kept{}, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return keysource.Kept{}, err
	}
	c, err := d.connection(ctx)
	if err != nil {
		return keysource.Kept{}, err
	}
	// Not with do: a key pair is not made twice.
	err = d.with(ctx, c, func(c *connection, _ pkcs11.SessionHandle) error {
		if err := d.offers(c, a.sign, pkcs11.CKF_SIGN, a.name); err != nil {
			return err
		}
		if err := d.offers(c, a.generate, pkcs11.CKF_GENERATE_KEY_PAIR, a.name); err != nil {
			return err
		}
		s, err := d.module.lib.OpenSession(c.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return err
		}
		defer func() { _ = d.module.lib.CloseSession(s) }()
		return d.generate(s, a, id[:])
	})
	if err != nil {
		return keysource.Kept{}, fmt.Errorf("the token %q made no key for %s: %w", c.name, a.name, err)
	}
	kept, err := d.Keys(ctx, name)
	if err != nil {
		return keysource.Kept{}, err
	}
	ref := hex.EncodeToString(id[:])
	for _, k := range kept {
		if k.Ref == ref {
			return k, nil
		}
	}
	return keysource.Kept{}, fmt.Errorf("the token %q made the key %s, which cannot be used; the log says why", c.name, ref)
}

// generate makes a key pair on the token.
func (d *device) generate(s pkcs11.SessionHandle, a *algorithm, id []byte) (err error) {
	both := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, a.keyType),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, d.cfg.Key), pkcs11.NewAttribute(pkcs11.CKA_ID, id),
	}
	private := slices.Concat(both, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, false),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false),
	})
	for _, pair := range a.pairs() {
		public := slices.Concat(both, pair, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true),
		})
		_, _, err = d.module.lib.GenerateKeyPair(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(a.generate, nil)}, public, private)
		if err == nil || !is(err, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID, pkcs11.CKR_DOMAIN_PARAMS_INVALID, pkcs11.CKR_TEMPLATE_INCONSISTENT, pkcs11.Error(0x140)) { // CKR_CURVE_NOT_SUPPORTED
			return err
		}
	}
	return err
}
