package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/css"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
)

// patience bounds each thing that is asked of the browser.
const patience = 30 * time.Second

// A Browser is one tab. It is for the test's own goroutine.
type Browser struct {
	t      testing.TB
	ctx    context.Context // of the tab
	record *record
	look   *look
	scope  string // a CSS selector; empty: the whole page
}

// New makes a profile with one tab. It is gone at the end of the test, which fails if there were
// problems in its pages.
func New(t testing.TB) *Browser {
	t.Helper()
	return open(t, usual.get(t), chromedp.WithNewBrowserContext())
}

// NewWithHistory is New with a browser that keeps pages as they were, to go back to, as those of
// people do.
func NewWithHistory(t testing.TB) *Browser {
	t.Helper()
	return open(t, withHistory.get(t), chromedp.WithNewBrowserContext())
}

// NewWithoutCookies is New with a browser whose user has it refuse all cookies.
func NewWithoutCookies(t testing.TB) *Browser {
	t.Helper()
	return open(t, withoutCookies.get(t), chromedp.WithNewBrowserContext())
}

// Tab makes another tab in the profile. It has no authenticators.
func (b *Browser) Tab() *Browser {
	b.t.Helper()
	return open(b.t, b.ctx)
}

func open(t testing.TB, parent context.Context, options ...chromedp.ContextOption) *Browser {
	t.Helper()
	b := &Browser{t: t, record: newRecord(), look: &look{view: Desktop, scale: 1}}
	dialogs := make(chan page.DialogType, 100)
	ctx, cancel := chromedp.NewContext(parent, append(options, chromedp.WithListener(func(event any) {
		b.record.note(event)
		if e, ok := event.(*page.EventJavascriptDialogOpening); ok {
			dialogs <- e.Type
		}
	}))...)
	t.Cleanup(cancel)
	b.ctx = ctx
	if err := chromedp.Do(ctx); err != nil { // the tab lives as long as the context of this call
		t.Fatalf("a tab: %v", err)
	}
	go b.dismiss(dialogs)
	t.Cleanup(func() {
		for _, p := range b.record.take() {
			t.Errorf("in the browser: %s", p)
		}
	})
	// What chromedp asks for and nothing here needs: several events for each element and style
	// sheet of each page, and one to each tab for whatever another one does.
	call(b, css.Disable, cdp.Empty{})
	call(b, dom.Disable, cdp.Empty{})
	call(b, target.SetDiscoverTargets, target.SetDiscoverTargetsParams{})
	call(b, webauthn.Enable, webauthn.EnableParams{})
	b.View(Desktop)
	return b
}

// dismiss answers dialogs, during which a page stands still: a user leaves a page who wants to,
// and agrees to nothing else.
func (b *Browser) dismiss(dialogs <-chan page.DialogType) {
	for {
		select {
		case <-b.ctx.Done():
			return
		case kind := <-dialogs:
			// It may be gone with its page.
			_, _ = chromedp.Call(b.ctx, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: kind == page.DialogTypeBeforeunload})
		}
	}
}

// Open opens a page and waits until it is loaded.
func (b *Browser) Open(url string) {
	b.t.Helper()
	to := call(b, page.Navigate, page.NavigateParams{URL: url})
	if to.ErrorText != "" {
		b.t.Fatalf("opening %s: %s", url, to.ErrorText)
	}
	if to.LoaderID != "" && !b.record.await(func() bool { return b.record.loaded == to.LoaderID }) {
		b.t.Fatalf("%s is not loaded within %v", url, patience)
	}
}

// Problems returns what went wrong in the tab so far, and forgets it.
func (b *Browser) Problems() []string { return b.record.take() }

// Tolerate has problems that match a regular expression be none, from now on and until now.
func (b *Browser) Tolerate(pattern string) { b.record.tolerate(regexp.MustCompile(pattern)) }

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

// SetPresent says whether somebody touches the authenticator at once in the ceremonies that
// begin from now on. One that began while nobody did waits until the page gives up.
func (a *Authenticator) SetPresent(present bool) {
	a.b.t.Helper()
	call(a.b, webauthn.SetAutomaticPresenceSimulation, webauthn.SetAutomaticPresenceSimulationParams{AuthenticatorID: a.id, Enabled: present})
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
