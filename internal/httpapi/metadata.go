package httpapi

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/watchword-auth/watchword/internal/httpkit"
)

// metadataPath is that of RFC 8414 §3.
const metadataPath = "/.well-known/oauth-authorization-server"

// Metadata tells clients that know the issuer alone where its key set is (RFC 8414).
type Metadata struct {
	// Issuer is the tokens' iss, which clients hold against the document's, byte for byte.
	Issuer string
	// PublicURL is where clients reach the service. What the document names begins with it,
	// and never with the Host of a request, which the client chooses.
	PublicURL string
}

// ServerMetadata answers GET /.well-known/oauth-authorization-server. It has members for what
// there is.
type ServerMetadata struct {
	Issuer  string `json:"issuer" format:"uri" example:"https://auth.example.com"`
	JWKSURI string `json:"jwks_uri" format:"uri" example:"https://auth.example.com/.well-known/jwks.json"`
	// ResponseTypes has to be there, and GrantTypes would be taken for two that there are not
	// if it were not: RFC 8414 §2. There is no authorization endpoint.
	ResponseTypes []string `json:"response_types_supported" nullable:"false" doc:"none: there is no authorization endpoint"`
	GrantTypes    []string `json:"grant_types_supported" nullable:"false" doc:"none: POST /api/login is no OAuth grant"`
}

// Mount adds the route, and those that RFC 8414 §3.1 makes of an issuer with a path, which
// comes after the well-known one. The first answers then as well: for a proxy that cuts the
// path off, and for clients that append the well-known path to the issuer. There is none for
// an issuer under which no client could look for the document.
func (m *Metadata) Mount(api *httpkit.API) {
	u, err := url.Parse(m.Issuer)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.Fragment != "" {
		return
	}
	route := httpkit.Route{
		Method: http.MethodGet, Path: metadataPath, ID: "metadata", Tag: "keys", Summary: "Where the key set of the issuer is (RFC 8414)",
		Status: http.StatusOK, Answer: ServerMetadata{}, Type: httpkit.JSON,
	}
	api.Handle(route, m.serve)
	route.Summary = "The same, for the issuer with its path"
	path := strings.TrimRight(u.EscapedPath(), "/")
	if path != "" {
		route.Path, route.ID = metadataPath+path, "metadata-of-path"
		api.Handle(route, m.serve)
	}
	if strings.HasSuffix(u.Path, "/") { // which some clients do not cut off
		route.Path, route.ID = metadataPath+path+"/{$}", "metadata-of-path-with-slash"
		api.Handle(route, m.serve)
	}
}

func (m *Metadata) serve(w http.ResponseWriter, _ *http.Request) {
	body, err := json.Marshal(ServerMetadata{
		Issuer: m.Issuer, JWKSURI: m.PublicURL + jwksPath, ResponseTypes: []string{}, GrantTypes: []string{},
	})
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", httpkit.JSON)
	h.Set("Cache-Control", "public, max-age=300")
	_, _ = w.Write(body) // an error means that the client is gone
}
