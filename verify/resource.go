package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// metadataPath is that of a resource without a path (RFC 9728 §3).
const metadataPath = "/.well-known/oauth-protected-resource"

// metadataMaxAge is for how many seconds clients keep the metadata. They change only with the
// configuration.
const metadataMaxAge = "300"

// MetadataPath returns the path at which clients look for the metadata of a resource (RFC 9728
// §3.1): the well-known one, followed by the path of the resource. It is empty if New would
// refuse the resource as Config.Resource.
func MetadataPath(resource string) string {
	u, err := parseResource(resource)
	if err != nil {
		return ""
	}
	return metadataPathOf(u)
}

// Metadata returns a handler that answers with the metadata of Config.Resource (RFC 9728 §3.2),
// so that a client that knows the resource alone finds the issuer. Anybody may read them:
//
//	mux.Handle("GET "+verify.MetadataPath(resource), verifier.Metadata())
//
// Clients in a browser need CORS for it, as for the resource itself. Without Config.Resource
// the answer is 404.
func (v *Verifier) Metadata() http.Handler {
	if v.metadata == nil {
		return http.NotFoundHandler()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "public, max-age="+metadataMaxAge)
		_, _ = w.Write(v.metadata) // an error means that the client has gone
	})
}

// resourceMetadata are those of RFC 9728 §2. A member without a value is left out (§3.2).
type resourceMetadata struct {
	Resource             string   `json:"resource"`
	AuthorizationServers []string `json:"authorization_servers"`
	ScopesSupported      []string `json:"scopes_supported,omitempty"`
	BearerMethods        []string `json:"bearer_methods_supported"`
	Name                 string   `json:"resource_name,omitempty"`
}

// describe returns the resource's metadata, and the parameter of a challenge that says where
// they are (RFC 9728 §5.1). Without a resource there are none.
func (c *Config) describe() (metadata []byte, parameter string, err error) {
	if c.Resource == "" {
		if c.ResourceName != "" || len(c.ScopesSupported) > 0 {
			return nil, "", errors.New("there is a name or there are scopes of a resource, but no resource")
		}
		return nil, "", nil
	}
	u, err := parseResource(c.Resource)
	if err != nil {
		return nil, "", err
	}
	for _, scope := range c.ScopesSupported {
		if !accesstoken.IsScope(scope) {
			return nil, "", fmt.Errorf("%q cannot be a scope (RFC 6749 §3.3)", scope)
		}
	}
	metadata, err = json.Marshal(resourceMetadata{
		Resource: c.Resource, AuthorizationServers: []string{c.Issuer}, ScopesSupported: slices.Clone(c.ScopesSupported),
		BearerMethods: []string{"header"}, Name: c.ResourceName,
	})
	at := u.Scheme + "://" + u.Host + metadataPathOf(u)
	if u.RawQuery != "" {
		at += "?" + u.RawQuery
	}
	return metadata, `, resource_metadata="` + at + `"`, err
}

// parseResource reads the URL of a resource (RFC 9728 §1.2). On the machine itself it may lack
// TLS, for tests.
func parseResource(resource string) (*url.URL, error) {
	u, err := url.Parse(resource)
	fault := ""
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname())):
		fault = "is not an https URL"
	case u.User != nil:
		fault = "names a user"
	case strings.Contains(resource, "#"):
		fault = "has a fragment"
	case u.ForceQuery:
		fault = "has an empty query"
	case strings.ContainsFunc(resource, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }):
		fault = "has characters that have to be percent-encoded"
	case strings.ContainsFunc(u.Host, func(r rune) bool { return r > '~' || r == '%' }): // it is decoded
		fault = "has a host with percent-encoding, or with a zone"
	case u.Path != "" && u.Path != "/" && (strings.Contains(u.Path, "//") || path.Clean(u.Path) != strings.TrimSuffix(u.Path, "/")):
		fault = "has a path with segments that are empty, . or .."
	default:
		return u, nil
	}
	return nil, fmt.Errorf("the resource (%q) %s", resource, fault)
}

// metadataPathOf leaves out a slash that is the whole path (RFC 9728 §3.1).
func metadataPathOf(u *url.URL) string {
	if u.Path == "/" {
		return metadataPath
	}
	return metadataPath + u.EscapedPath()
}
