package httpapi

import (
	"net/http"
	"strings"

	"github.com/watchword-auth/watchword/internal/httpkit"
)

// CORS lets pages of the origins do what a page does for its own user: log in by every method,
// step up, renew and log out, and read what is public. Left out are administration, because no
// page of another origin is to hold an administrator's token; the user's own factors, because
// such a page could change by what the user authenticates; and /api/verify, because proxies ask
// it with the method and the headers of other requests, and would take the answer to a preflight
// request for "let it pass".
func CORS(origins []string) httpkit.CORS {
	return httpkit.CORS{Origins: origins, Methods: pageMethods}
}

var pagesWrite, pagesRead = []string{http.MethodPost}, []string{http.MethodGet, http.MethodHead}

func pageMethods(path string) []string {
	switch path {
	case "/api/login", "/api/login/mfa", "/api/login/mfa/options", "/api/login/mfa/enrol",
		"/api/login/passkey", "/api/login/passkey/options", "/api/login/recover", "/api/login/step-up", "/api/login/step-up/options",
		"/api/renew", "/api/logout", "/auth/logout":
		return pagesWrite
	case "/api/pkeys", jwksPath, "/api/revocations", metadataPath:
		return pagesRead
	}
	if strings.HasPrefix(path, metadataPath+"/") {
		return pagesRead
	}
	return nil
}
