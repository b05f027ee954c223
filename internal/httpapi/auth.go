package httpapi

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// Auth is the life of a token over HTTP: log in, renew, log out, verify, revoke.
type Auth struct {
	Login   *login.Service
	Proxies httpkit.Proxies
	// UserInfo names the token's members that Verify gives headers of their own.
	UserInfo login.UserInfo
}

// Mount adds the routes.
func (a *Auth) Mount(api *httpkit.API) {
	api.Handle(httpkit.Route{
		Method: http.MethodPost, Path: "/api/login", ID: "login", Tag: "tokens", Summary: "Log in by password",
		Errors:    []int{http.StatusUnauthorized, http.StatusForbidden},
		Class:     limit.Login,
		OwnBounds: true, // those of the pool that hashes passwords
		Body:      LoginRequest{}, Status: http.StatusOK, Answer: Grant{}, Type: httpkit.JSON,
		OtherAnswers: []httpkit.Other{{Status: http.StatusUnauthorized, Answer: LoginRefusal{}, Type: "application/problem+json"}},
	}, a.login)
	api.Handle(httpkit.Route{
		Method: http.MethodPost, Path: "/api/renew", ID: "renew", Tag: "tokens", Summary: "Spend a refresh token for a new pair",
		Errors: []int{http.StatusUnauthorized, http.StatusForbidden},
		Class:  limit.Renew,
		Body:   RenewRequest{}, Status: http.StatusOK, Answer: Grant{}, Type: httpkit.JSON,
	}, a.renew)
	api.Handle(httpkit.Route{
		Method: http.MethodPost, Path: "/api/logout", ID: "logout", Tag: "tokens",
		Summary: "End the session of an access token, which may have expired, or of a refresh token in the body, and revoke its tokens",
		Bearer:  true, Body: LogoutRequest{}, Optional: true, Status: http.StatusNoContent,
	}, a.logout)
	api.Handle(httpkit.Route{
		Method: http.MethodPost, Path: "/auth/logout", ID: "auth-logout", Tag: "tokens", Summary: "The same as /api/logout",
		Bearer: true, Body: LogoutRequest{}, Optional: true, Status: http.StatusNoContent,
	}, a.logout)
	api.Handle(httpkit.Route{
		Path: "/api/verify", ID: "verify", Tag: "tokens",
		Summary: "The claims of a valid token, in the body and as X-Auth-* headers; any method, for forward-auth",
		Bearer:  true, OwnBounds: true, // it needs no storage
		Status: http.StatusOK, Answer: map[string]any{}, Type: httpkit.JSON,
	}, a.verify)
	api.Handle(httpkit.Route{
		Method: http.MethodPost, Path: "/api/revocations", ID: "revoke", Tag: "revocations",
		Summary: "Revoke a token, a session, a user's tokens or a signing key",
		Bearer:  true, Class: limit.Admin, Errors: []int{http.StatusForbidden, http.StatusNotFound},
		Body: RevocationRequest{}, Status: http.StatusOK, Answer: Revocation{}, Type: httpkit.JSON,
	}, a.revoke)
}

// LoginRequest is the body of POST /api/login.
type LoginRequest struct {
	Username    string `json:"username" example:"tester"`
	Password    string `json:"password" format:"password" example:"correct horse battery staple"`
	Audience    string `json:"audience,omitempty" doc:"whom the session's access tokens are for: one of tokens.audience, or the issuer, which this API's own administration asks for; left out: all of tokens.audience" example:"https://auth.example.com"`
	DeviceToken string `json:"device_token,omitempty" doc:"of an earlier login on this device, which then needs no second factor"`
}

// RenewRequest is the body of POST /api/renew.
type RenewRequest struct {
	RefreshToken string `json:"refresh_token"`
	Audience     string `json:"audience,omitempty" doc:"whom this access token is for, as in POST /api/login; left out: the same as at login" example:"https://auth.example.com"`
}

// LogoutRequest is the body of POST /api/logout, which may be left out.
type LogoutRequest struct {
	RefreshToken string `json:"refresh_token,omitempty" doc:"of the session; without one, the access token says which"`
}

// Grant is what a login and a renewal answer (RFC 6749 §5.1, and the session).
type Grant struct {
	AccessToken  string `json:"access_token" doc:"a JWT by RFC 9068"`
	TokenType    string `json:"token_type" enum:"Bearer"`
	ExpiresIn    int64  `json:"expires_in" doc:"seconds that the access token lives"`
	RefreshToken string `json:"refresh_token" doc:"for POST /api/renew, once"`
	SessionID    string `json:"session_id"`
	DeviceToken  string `json:"device_token,omitempty" doc:"where it was asked for: for POST /api/login, which then needs no second factor for some time"`

	BackupCodesLeft *int   `json:"backup_codes_left,omitempty" doc:"after a login by backup code"`
	Warning         string `json:"warning,omitempty" enum:"few_left" doc:"after a login by backup code: two or fewer are left, make new ones"`
}

// errFactor: the password was right.
var errFactor = problem.New(problem.Unauthenticated, "mfa_required", "this account needs a second factor; present one with POST /api/login/mfa, or enrol one with POST /api/login/mfa/enrol")

// LoginRefusal is a login that is refused; where the code is mfa_required, it goes on at POST
// /api/login/mfa.
type LoginRefusal struct {
	httpkit.Problem
	MFAToken  string   `json:"mfa_token,omitempty" doc:"with mfa_required: for POST /api/login/mfa"`
	Methods   []string `json:"methods,omitzero" doc:"with mfa_required: by which the user may answer" enum:"totp,passkey,backup_code"`
	Enrol     []string `json:"enrol,omitzero" doc:"with mfa_required: of which the user must enrol one first; empty, or methods is" enum:"totp,passkey"`
	ExpiresIn int64    `json:"expires_in,omitempty" doc:"with mfa_required: seconds that mfa_token lives"`
}

func (a *Auth) login(w http.ResponseWriter, r *http.Request) {
	var in LoginRequest
	if err := httpkit.ReadJSON(w, r, &in); err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	if in.Username == "" || in.Password == "" {
		httpkit.WriteProblem(w, missing("username", "password"))
		return
	}
	step, err := a.Login.Begin(r.Context(), login.Credential{Username: in.Username, Password: in.Password, Device: in.DeviceToken}, in.Audience, a.Proxies.Client(r))
	if c := step.Challenge; c != nil {
		httpkit.WriteExtended(w, errFactor, func(p httpkit.Problem) any {
			return LoginRefusal{p, c.Token, c.Methods, c.Enrol, int64(c.ExpiresIn / time.Second)}
		})
		return
	}
	writeGrant(w, step.Grant, err)
}

func (a *Auth) renew(w http.ResponseWriter, r *http.Request) {
	var in RenewRequest
	if err := httpkit.ReadJSON(w, r, &in); err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	if in.RefreshToken == "" {
		httpkit.WriteProblem(w, missing("refresh_token"))
		return
	}
	grant, err := a.Login.Renew(r.Context(), in.RefreshToken, in.Audience, a.Proxies.Client(r))
	writeGrant(w, grant, err)
}

func writeGrant(w http.ResponseWriter, grant login.Grant, err error) {
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	w.Header().Set("Pragma", "no-cache") // RFC 6749 §5.1 asks for it beside no-store
	httpkit.WriteJSON(w, http.StatusOK, grantView(grant))
}

func grantView(g login.Grant) Grant {
	return Grant{
		AccessToken: g.AccessToken, TokenType: "Bearer", ExpiresIn: int64(g.ExpiresIn / time.Second),
		RefreshToken: g.RefreshToken, SessionID: g.SessionID,
	}
}

func (a *Auth) logout(w http.ResponseWriter, r *http.Request) {
	var in LogoutRequest
	if err := httpkit.ReadOptionalJSON(w, r, &in); err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	proof := login.Proof{RefreshToken: in.RefreshToken}
	var err error
	proof.AccessToken, err = httpkit.AccessToken(r)
	if proof.RefreshToken != "" && problem.From(err).Kind == problem.Unauthenticated {
		err = nil // the refresh token is enough
	}
	if err == nil {
		err = a.Login.Logout(r.Context(), proof, a.Proxies.Client(r))
	}
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// verify answers with the claims, in the body for programs and in X-Auth-*
// headers for proxies that ask it before they let a request pass (nginx
// auth_request, Traefik and Caddy forward-auth, Envoy ext_authz), whatever method
// the request had that they ask about.
func (a *Auth) verify(w http.ResponseWriter, r *http.Request) {
	token, err := httpkit.Authenticate(a.Login, r)
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	h := w.Header()
	a.setIdentity(h, token)
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, token.Payload()) // an error means that the client is gone
}

// setIdentity writes who the token's holder is. The fixed headers are always
// there, empty if need be, so that a proxy that copies them overwrites what the
// client may have sent under the same names. Because a token has at most
// accesstoken.DefaultMaxLength bytes, all headers together have at most 20 KiB, which
// is what proxies have to make room for.
func (a *Auth) setIdentity(h http.Header, t *accesstoken.Token) {
	h.Set("X-Auth-Subject", headerText(t.Subject))
	h.Set("X-Auth-Session", headerText(t.SessionID))
	h.Set("X-Auth-Expires", strconv.FormatInt(t.ExpiresAt.Unix(), 10))
	authTime := ""
	if !t.AuthTime.IsZero() {
		authTime = strconv.FormatInt(t.AuthTime.Unix(), 10)
	}
	h.Set("X-Auth-Time", authTime)
	h.Set("X-Auth-Methods", headerText(strings.Join(t.AMR, " ")))
	h.Set("X-Auth-Username", headerText(t.Claim(a.UserInfo.Username)))
	h.Set("X-Auth-Name", headerText(t.Claim(a.UserInfo.FullName)))
	h.Set("X-Auth-Email", headerText(t.Claim(a.UserInfo.Email)))
	a.setClaims(h, t.Claims())
}

// setClaims writes each of the user's claims under X-Auth-Claim-<name>, but for what a
// fixed header says already. Headers know fewer names than claims: of two that would
// become the same header neither has a value, so that none can pass for the other.
func (a *Auth) setClaims(h http.Header, claims map[string]any) {
	username, fullName, email := claimHeader(a.UserInfo.Username), claimHeader(a.UserInfo.FullName), claimHeader(a.UserInfo.Email)
	for name, value := range claims {
		text, ok := value.(string)
		if !ok || registered[name] {
			continue
		}
		header := claimHeader(name)
		if header == username || header == fullName || header == email {
			continue
		}
		if _, taken := h[header]; taken {
			text = ""
		}
		h[header] = []string{headerText(text)}
	}
}

// claimHeader is the header for a claim.
func claimHeader(claim string) string {
	return http.CanonicalHeaderKey("X-Auth-Claim-" + headerName(claim))
}

// registered are the members of a token that are about the token.
var registered = map[string]bool{"iss": true, "sub": true, "aud": true, "jti": true, "sid": true, "client_id": true, "acr": true}

// headerName keeps a claim's name where a header's may have it (RFC 9110 §5.6.2).
func headerName(claim string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-':
			return c
		}
		return '-'
	}, claim)
}

// headerText percent-encodes what is not printable ASCII, so that no claim can
// end a header and begin another, and no proxy has to guess an encoding.
func headerText(s string) string {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == '%' {
			return url.PathEscape(s)
		}
	}
	return s
}

var errNoSuchID = problem.New(problem.Invalid, "invalid_request", "nothing has such an id; give it as it stands in the token")

// RevocationRequest is the body of POST /api/revocations: what to revoke. Exactly one of
// jti, token, session_id, user and kid; reason goes with kid.
type RevocationRequest struct {
	TokenID      string       `json:"jti,omitempty" doc:"one access token by its id"`
	Token        string       `json:"token,omitempty" doc:"one access token, whole"`
	SessionID    string       `json:"session_id,omitempty" doc:"a session and its tokens"`
	User         string       `json:"user,omitempty" doc:"the tokens and sessions of a user, by the user's id"`
	IssuedBefore *NumericDate `json:"issued_before,omitempty" doc:"with user: those issued before this moment, in seconds since 1970 or as RFC 3339; left out: all until now"`
	KeyID        string       `json:"kid,omitempty" doc:"a signing key and everything it signed"`
	Reason       string       `json:"reason,omitempty" doc:"with kid: why, for the audit trail, which keeps 500 characters of it"`
}

// Revocation answers POST /api/revocations.
type Revocation struct {
	Seq int64 `json:"seq" doc:"the sequence number of the feed's entry"`
}

func (a *Auth) revoke(w http.ResponseWriter, r *http.Request) {
	token, err := httpkit.Authenticate(a.Login, r)
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	var in RevocationRequest
	if err := httpkit.ReadJSON(w, r, &in); err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	target, err := in.target()
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	seq, err := a.Login.Revoke(r.Context(), token, target, a.Proxies.Client(r))
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	httpkit.WriteJSON(w, http.StatusOK, Revocation{Seq: seq})
}

func (in RevocationRequest) target() (login.Target, error) {
	named := 0
	for _, s := range []string{in.TokenID, in.Token, in.SessionID, in.User, in.KeyID} {
		if s != "" {
			named++
		}
	}
	if named != 1 {
		return login.Target{}, problem.New(problem.Invalid, "invalid_request", "name exactly one of jti, token, session_id, user and kid")
	}
	if in.Reason != "" && in.KeyID == "" {
		return login.Target{}, problem.New(problem.Invalid, "invalid_request", "reason goes with kid alone; leave it out, or name a key")
	}
	target := login.Target{TokenID: in.TokenID, Token: in.Token, SessionID: in.SessionID, User: in.User, KeyID: in.KeyID, Reason: in.Reason}
	if in.IssuedBefore != nil {
		if in.User == "" {
			return login.Target{}, problem.New(problem.Invalid, "invalid_request", "issued_before goes with user alone; leave it out, or name a user")
		}
		target.IssuedBefore = time.Time(*in.IssuedBefore)
	}
	// A target that is named by its id alone need not exist any more, so only its form can
	// be checked. That is needed: the log goes by the digest of the id, and another
	// spelling would be answered with success and revoke nothing.
	if in.TokenID != "" && !token.IsID(in.TokenID) {
		return login.Target{}, errNoSuchID
	}
	if in.SessionID != "" {
		id, err := uuid.Parse(in.SessionID)
		if err != nil {
			return login.Target{}, errNoSuchID
		}
		target.SessionID = id.String()
	}
	return target, nil
}

// NumericDate reads a moment as seconds since 1970 (RFC 7519 §2) or RFC 3339.
type NumericDate time.Time

// Schema describes both forms.
func (NumericDate) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{OneOf: []*huma.Schema{
		{Type: "number", ExclusiveMinimum: new(0.0)},
		{Type: "string", Format: "date-time"},
	}}
}

// UnmarshalJSON reads either form.
func (d *NumericDate) UnmarshalJSON(b []byte) error {
	var seconds float64
	if err := json.Unmarshal(b, &seconds); err == nil {
		if seconds <= 0 || seconds > 1<<40 {
			return problem.New(problem.Invalid, "invalid_request", "issued_before must be a moment after 1970")
		}
		*d = NumericDate(time.UnixMicro(int64(seconds * 1e6)))
		return nil
	}
	var t time.Time
	if err := json.Unmarshal(b, &t); err != nil || t.Unix() <= 0 {
		return problem.New(problem.Invalid, "invalid_request", "issued_before must be seconds since 1970 or a time by RFC 3339, and after 1970")
	}
	*d = NumericDate(t)
	return nil
}

// missing is the answer to a request whose body lacks required members.
func missing(names ...string) error {
	return problem.New(problem.Invalid, "invalid_request", "the body needs %s", strings.Join(names, " and "))
}
