package api

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// The metadata name the issuer as tokens do, and a key set under the public URL, whatever
// host a client names.
func TestMetadata(t *testing.T) {
	const root = "/.well-known/oauth-authorization-server"
	for issuer, c := range map[string]struct{ found, missing []string }{
		"https://auth.example.com":              {[]string{root}, []string{root + "/", root + "/x", "/.well-known/openid-configuration"}},
		"https://auth.example.com/":             {[]string{root, root + "/"}, []string{root + "/x", root + "//"}},
		"https://auth.example.com/a/b":          {[]string{root, root + "/a/b"}, []string{root + "/", root + "/a", root + "/a/b/", root + "/a/b/c"}},
		"http://auth.example.com:8080/a%20{b}/": {[]string{root, root + "/a%20%7Bb%7D", root + "/a%20%7Bb%7D/"}, []string{root + "/a", root + "/a%20%7Bb%7D/c"}},
		"watchword":                             {nil, []string{root, root + "/watchword"}},
		"urn:example:auth":                      {nil, []string{root}},
		"https://auth.example.com?tenant=1":     {nil, []string{root}},
	} {
		t.Run(issuer, func(t *testing.T) {
			w := replica.New(t, func(cfg *config.Config) {
				cfg.Server.PublicURL, cfg.Tokens.Issuer = "https://login.example.com/base", issuer
			})
			for _, path := range c.found {
				r := w.Request("GET", path, "", nil)
				r.Host = "evil.example"
				r.Header.Set("X-Forwarded-Host", "evil.example")
				a := w.Want(w.Send(r), 200, "")
				got := kit.Decode[map[string]any](t, a)
				if got["issuer"] != issuer || got["jwks_uri"] != "https://login.example.com/base/.well-known/jwks.json" {
					t.Errorf("%s: %v", path, got)
				}
				if types, ok := got["response_types_supported"].([]any); !ok || len(types) != 0 || len(got) != 4 {
					t.Errorf("%s: %v", path, got)
				}
				if a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Cache-Control") != "public, max-age=300" {
					t.Errorf("%s: %v", path, a.Header)
				}
			}
			for _, path := range c.missing {
				w.Want(w.Do("GET", path, "", nil), 404, "no_such_path")
			}
		})
	}
}

// springPaths are where Spring Security looks for the metadata of an issuer, in its order. It
// goes on to the next one after an answer that is 4xx.
func springPaths(issuer *url.URL) []string {
	const openID, oauth = "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"
	return []string{issuer.Path + openID, openID + issuer.Path, oauth + issuer.Path}
}

// A resource server that is given the issuer alone finds the keys of its tokens, with a
// replica at the root of its host and behind a proxy that keeps paths as they are.
func TestSpringFindsTheKeySet(t *testing.T) {
	for _, issuer := range []string{"https://auth.example.com", "https://auth.example.com/", "https://auth.example.com/tenant", "https://auth.example.com/tenant/"} {
		w := replica.New(t, func(cfg *config.Config) { cfg.Server.PublicURL, cfg.Tokens.Issuer = "https://auth.example.com", issuer })
		u, err := url.Parse(issuer)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, path := range springPaths(u) {
			a := w.Do("GET", path, "", nil)
			if a.Status >= 400 && a.Status < 500 {
				continue
			}
			doc := kit.Decode[httpapi.ServerMetadata](t, w.Want(a, http.StatusOK, ""))
			if doc.Issuer != issuer || doc.Issuer != w.Verify(w.Login("admin").AccessToken)["iss"] {
				t.Errorf("%s names the issuer %s", issuer, doc.Issuer)
			}
			keys, err := url.Parse(doc.JWKSURI)
			if err != nil || keys.Host != "auth.example.com" {
				t.Fatalf("%s: %v", doc.JWKSURI, err)
			}
			if set := kit.Decode[httpapi.JWKS](t, w.Want(w.Do("GET", keys.Path, "", nil), 200, "")); len(set.Keys) == 0 {
				t.Errorf("%s has no keys", keys)
			}
			found = true
			break
		}
		if !found {
			t.Errorf("%s: the metadata are nowhere", issuer)
		}
	}
}
