package httpapi

import (
	"net/http"
	"strings"

	"github.com/watchword-auth/watchword/internal/httpkit"
)

// CORS lets pages of the origins do what a page does for its own user, and read what is
// public. What is left out: administration, because no page of another origin is to hold an
// administrator's token, and /api/verify, because proxies ask it with the method and the
// headers of other requests, and would take the answer to a preflight request for "let it
// pass".
func CORS(origins []string) httpkit.CORS {
	return httpkit.CORS{Origins: origins, Methods: pageMethods}
}

var pagesWrite, pagesRead = []string{http.MethodPost}, []string{http.MethodGet, http.MethodHead}

func pageMethods(path string) []string {
	switch path {
	case "/api/login", "/api/renew", "/api/logout", "/auth/logout":
		return pagesWrite
	case "/api/pkeys", jwksPath, "/api/revocations", metadataPath:
		return pagesRead
	}
	if strings.HasPrefix(path, metadataPath+"/") {
		return pagesRead
	}
	return nil
}
