// Package browser drives a real Chromium for tests of pages.
//
// A Browser is one tab. New makes it in a profile of its own, with cookies, cache and
// authenticators that no other test sees; Tab makes another one in the same profile. All of them
// run in one Chromium, which starts with the first test of the process and ends with the process.
// It has no windows. What only a whole one has are pages to go back to (NewWithHistory) and
// settings (NewWithoutCookies).
//
// A test does what a person does: Fill a field by its label, Click or Follow a button or a link by
// its role and name, Press keys. These wait until the thing is there, and when it does not come,
// the failure shows the page: its title, address, status, text, and what can be clicked. Sees,
// Until and Navigates wait for an event. Names and roles are those that Chromium gives to screen
// readers, so what a test finds, they find.
//
// A tab notes what goes wrong in its pages: errors of scripts, messages of console.error,
// violations of the Content-Security-Policy, requests that failed, dialogs, and requests to
// another origin than the page's. Whatever of that a test neither takes (Problems) nor tolerates
// (Tolerate) fails it at its end. An answer with an error status is a problem only of what a page
// is made of: style sheets, scripts, pictures, fonts.
//
// Axe has axe-core judge the page, TabOrder walks it by keyboard, Weight says how many bytes it
// cost, and Pictures takes its pictures.
//
// A browser offers WebAuthn only in a secure context. http://localhost is one without a
// certificate, and its relying party id is "localhost". Another port of it is another origin
// with the same id. A name below it, as in http://other.localhost, cannot use that id.
// Names that end in ".test" are this machine too: over https with whatever certificate, where
// several hosts share a relying party id, and over http, where no context is secure and no Secure
// cookie is kept.
//
// With an authenticator that holds a credential and whose user is present (SetPresent), a call of
// navigator.credentials.get with mediation "conditional" returns it at once. If nobody is
// present it waits, as a page does whose user types a password instead. There is no list of
// passkeys below the field in which one could choose.
package browser
