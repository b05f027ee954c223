// Package browser starts a real Chromium for tests, and gives it authenticators: the
// ceremonies of passkeys run as they do on a user's machine, but for the finger.
//
// A browser offers WebAuthn only in a secure context. http://localhost is one without a
// certificate, and its relying party id is "localhost". Another port of it is another origin
// with the same id. A name below it, as in http://other.localhost, cannot use that id.
// Names that end in ".test" are this machine too, over https with whatever certificate: there,
// several hosts share a relying party id.
package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
)

// patience bounds each thing that is asked of the browser.
const patience = 30 * time.Second

// A Browser is one Chromium with one page. It is for the test's own goroutine.
type Browser struct {
	t   testing.TB
	ctx context.Context // of the page
}

// New starts a Chromium with a profile of its own. Both are gone at the end of the test, also
// of one that fails.
func New(t testing.TB) *Browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("the tests need Chromium (make tools): %v", err)
	}
	// A Chromium that is killed leaves its sockets there. Their paths must be short.
	dir, err := os.MkdirTemp("", "chromium")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.Env("TMPDIR="+dir),
		chromedp.Flag("disable-gpu", true),
		chromedp.Flag("no-sandbox", true), // which many containers forbid; it sees the tests' own pages alone
		chromedp.Flag("ignore-certificate-errors", true),
		// It asks the network for nothing.
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-domain-reliability", true),
		chromedp.Flag("no-pings", true),
		chromedp.Flag("host-resolver-rules", "MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE *.localhost, EXCLUDE 127.0.0.1"),
	)
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop) // waits for the process, and removes the profile
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // the browser lives as long as the context of this call
		t.Fatalf("Chromium does not start: %v", err)
	}
	b := &Browser{t, ctx}
	call(b, webauthn.Enable, webauthn.EnableParams{})
	return b
}

// Open opens a page and waits until it is loaded.
func (b *Browser) Open(url string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
		b.t.Fatalf("opening %s: %v", url, err)
	}
}

// An Exception is what a script threw.
type Exception struct {
	Name    string `json:"name"` // "NotAllowedError"
	Message string `json:"message"`
}

func (e *Exception) Error() string { return e.Name + ": " + e.Message }

// Run runs the body of an async function in the page, with the argument as x, and returns as
// JSON what it returns. What it throws is an *Exception.
func (b *Browser) Run(body string, x any) (json.RawMessage, error) {
	b.t.Helper()
	argument, err := json.Marshal(x)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`(async () => {
		try {
			const returned = await (async x => {`+body+`})(`+string(argument)+`);
			return JSON.stringify({returned: returned === undefined ? null : returned});
		} catch (e) {
			return JSON.stringify({thrown: {name: String(e.name), message: String(e.message)}});
		}
	})()`, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("running %s: %v", body, err)
	}
	var result struct {
		Returned json.RawMessage `json:"returned"`
		Thrown   *Exception      `json:"thrown"`
	}
	if err := json.Unmarshal([]byte(text), &result); err != nil {
		b.t.Fatal(err)
	}
	if result.Thrown != nil {
		return nil, result.Thrown
	}
	return result.Returned, nil
}

// Create gives the options ({"publicKey":…}) to navigator.credentials.create, and returns the
// JSON form of what it returns.
func (b *Browser) Create(options json.RawMessage) (json.RawMessage, error) {
	b.t.Helper()
	return b.Run(`const c = await navigator.credentials.create({publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(x.publicKey)});
		return c.toJSON()`, options)
}

// Get is Create for navigator.credentials.get.
func (b *Browser) Get(options json.RawMessage) (json.RawMessage, error) {
	b.t.Helper()
	return b.Run(`const c = await navigator.credentials.get({publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(x.publicKey)});
		return c.toJSON()`, options)
}

// Options describe an authenticator.
type Options struct {
	Transport   string // "internal", "usb", "nfc", "ble", "hybrid"; empty: internal
	NotResident bool   // it holds no discoverable credentials
	NotVerified bool   // it cannot verify its user
	Synced      bool   // its credentials are backed up
	U2F         bool   // a security key from before CTAP 2
}

// An Authenticator is one of the browser's authenticators. It touches itself.
type Authenticator struct {
	b  *Browser
	id webauthn.AuthenticatorID
}

// AddAuthenticator adds an authenticator.
func (b *Browser) AddAuthenticator(o Options) *Authenticator {
	b.t.Helper()
	options := &webauthn.VirtualAuthenticatorOptions{
		Protocol: webauthn.AuthenticatorProtocolCtap2, Ctap2version: webauthn.Ctap2versionCtap21,
		Transport:      webauthn.AuthenticatorTransportInternal,
		HasResidentKey: !o.NotResident, HasUserVerification: !o.NotVerified, IsUserVerified: !o.NotVerified,
		AutomaticPresenceSimulation: true,
		DefaultBackupEligibility:    o.Synced, DefaultBackupState: o.Synced,
	}
	if o.Transport != "" {
		options.Transport = webauthn.AuthenticatorTransport(o.Transport)
	}
	if o.U2F {
		options.Protocol, options.Ctap2version = webauthn.AuthenticatorProtocolU2f, ""
	}
	added := call(b, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: options})
	return &Authenticator{b, added.AuthenticatorID}
}

// Remove takes the authenticator away, with its credentials.
func (a *Authenticator) Remove() {
	a.b.t.Helper()
	call(a.b, webauthn.RemoveVirtualAuthenticator, webauthn.RemoveVirtualAuthenticatorParams{AuthenticatorID: a.id})
}

// SetVerified says whether the user's verification succeeds from now on.
func (a *Authenticator) SetVerified(verified bool) {
	a.b.t.Helper()
	call(a.b, webauthn.SetUserVerified, webauthn.SetUserVerifiedParams{AuthenticatorID: a.id, IsUserVerified: verified})
}

// A Credential is what an authenticator holds. It can be put into another one, as a thief
// would who copied the device.
type Credential struct {
	ID         []byte  `json:"credentialId"`
	Resident   bool    `json:"isResidentCredential"`
	RPID       string  `json:"rpId"`
	PrivateKey []byte  `json:"privateKey"` // PKCS #8
	UserHandle []byte  `json:"userHandle,omitempty"`
	Counter    float64 `json:"signCount"` // -1: it does not count
	Eligible   bool    `json:"backupEligibility"`
	BackedUp   bool    `json:"backupState"`
}

// Credentials returns what the authenticator holds.
func (a *Authenticator) Credentials() []Credential {
	a.b.t.Helper()
	var all []Credential
	for _, c := range call(a.b, webauthn.GetCredentials, webauthn.GetCredentialsParams{AuthenticatorID: a.id}).Credentials {
		all = append(all, Credential{c.CredentialID, c.IsResidentCredential, c.RpID, c.PrivateKey, c.UserHandle, c.SignCount, c.BackupEligibility, c.BackupState})
	}
	return all
}

// addCredential is webauthn.AddCredential without the parameters of an experiment, which are
// always sent there, and which this authenticator refuses.
var addCredential = cdp.Command[addCredentialParams, cdp.Empty]{Method: webauthn.CommandAddCredential}

type addCredentialParams struct {
	ID         webauthn.AuthenticatorID `json:"authenticatorId"`
	Credential Credential               `json:"credential"`
}

// Put adds a credential.
func (a *Authenticator) Put(c Credential) {
	a.b.t.Helper()
	call(a.b, addCredential, addCredentialParams{a.id, c})
}

// RemoveCredential removes the credential with this ID.
func (a *Authenticator) RemoveCredential(id []byte) {
	a.b.t.Helper()
	call(a.b, webauthn.RemoveCredential, webauthn.RemoveCredentialParams{AuthenticatorID: a.id, CredentialID: id})
}

// SetCounter gives the credential with this ID another counter. The next login says one more.
func (a *Authenticator) SetCounter(id []byte, counter uint32) {
	a.b.t.Helper()
	held := a.Credentials()
	i := slices.IndexFunc(held, func(c Credential) bool { return bytes.Equal(c.ID, id) })
	if i < 0 {
		a.b.t.Fatalf("the authenticator does not hold %x", id)
	}
	a.RemoveCredential(id)
	held[i].Counter = float64(counter)
	a.Put(held[i])
}

func call[P, R any](b *Browser, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	result, err := chromedp.Call(ctx, command, params)
	if err != nil {
		b.t.Fatal(fmt.Errorf("%s: %w", command.Method, err))
	}
	return result
}
