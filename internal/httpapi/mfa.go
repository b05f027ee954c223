package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/problem"
)

// MFA is second factors over HTTP: what follows the password in a login, what users have, and
// what administrators do about it.
type MFA struct {
	Login   *login.Service
	Factors *mfa.Service
	Proxies httpkit.Proxies
}

// Mount adds the routes.
func (m *MFA) Mount(api *httpkit.API) {
	m.mountLogin(api)
	m.mountStepUp(api)
	m.mountOwn(api)
	m.mountAdministration(api)
}

func (m *MFA) mountLogin(api *httpkit.API) {
	const tag = "second factors"
	api.Handle(httpkit.Route{
		Method: http.MethodPost, Path: "/api/login/mfa", ID: "login-mfa", Tag: tag,
		Summary: "Finish a login that was answered mfa_required, on any replica",
		Errors:  []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusConflict}, Class: limit.MFA,
		Body: MFARequest{}, Status: http.StatusOK, Answer: Grant{}, Type: httpkit.JSON,
	}, m.complete)
	api.Handle(httpkit.Route{
		Method: http.MethodPost, Path: "/api/login/mfa/options", ID: "login-mfa-options", Tag: tag,
		Summary: "The options for navigator.credentials.get, to answer by a passkey",
		Errors:  []int{http.StatusUnauthorized}, Class: limit.MFA,
		Body: MFAToken{}, Status: http.StatusOK, Answer: PasskeyOptions{}, Type: httpkit.JSON,
	}, m.options)
	api.Handle(httpkit.Route{
		Method: http.MethodPost, Path: "/api/login/mfa/enrol", ID: "login-mfa-enrol", Tag: tag,
		Summary: "Begin to enrol the first factor, where a login needs one; POST /api/login/mfa finishes both",
		Errors:  []int{http.StatusUnauthorized}, Class: limit.MFA,
		Body: MFAEnrol{}, Status: http.StatusOK, Answer: Enrolment{}, Type: httpkit.JSON,
	}, m.enrol)
	api.Handle(httpkit.Route{
		Method: http.MethodPost, Path: "/api/login/passkey/options", ID: "login-passkey-options", Tag: tag,
		Summary: "The options for navigator.credentials.get, to log in by a passkey alone",
		Errors:  []int{http.StatusConflict}, Class: limit.Ceremony,
		Body: struct{}{}, Optional: true, Status: http.StatusOK, Answer: PasskeyOptions{}, Type: httpkit.JSON,
	}, m.passkeyOptions)
	api.Handle(httpkit.Route{
		Method: http.MethodPost, Path: "/api/login/passkey", ID: "login-passkey", Tag: tag,
		Summary: "Log in by a passkey alone",
		Errors:  []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusConflict}, Class: limit.MFA,
		Body: PasskeyLogin{}, Status: http.StatusOK, Answer: Grant{}, Type: httpkit.JSON,
	}, m.passkeyLogin)
	api.Handle(httpkit.Route{
		Method: http.MethodPost, Path: "/api/login/recover", ID: "recover", Tag: tag,
		Summary: "Spend a recovery token: set a new password and, unless the administrator has said otherwise, remove all second factors",
		Errors:  []int{http.StatusUnauthorized, http.StatusConflict}, Class: limit.Login,
		Body: Recover{}, Status: http.StatusNoContent,
	}, m.recover)
}

// MFAToken names a login that was answered mfa_required.
type MFAToken struct {
	MFAToken string `json:"mfa_token"`
}

// MFARequest is the body of POST /api/login/mfa.
type MFARequest struct {
	MFAToken       string          `json:"mfa_token"`
	Method         string          `json:"method" enum:"totp,backup_code,passkey"`
	Code           string          `json:"code,omitempty" doc:"of an authenticator app, or a backup code" example:"123456"`
	Credential     json.RawMessage `json:"credential,omitempty" doc:"of a passkey: what navigator.credentials returned, as its toJSON writes it"`
	RememberDevice bool            `json:"remember_device,omitempty" doc:"asks for a device_token, where mfa.remember_device allows that"`
}

// MFAEnrol is the body of POST /api/login/mfa/enrol.
type MFAEnrol struct {
	MFAToken string `json:"mfa_token"`
	Method   string `json:"method" enum:"totp,passkey"`
}

// Enrolment is what an authenticator needs: an app the first three, a browser publicKey.
type Enrolment struct {
	Secret    string          `json:"secret,omitempty" doc:"in base32, for an authenticator app"`
	URI       string          `json:"otpauth_uri,omitempty" doc:"the same with all that an app wants to know"`
	QR        string          `json:"qr_svg,omitempty" doc:"otpauth_uri as a QR code, an SVG document"`
	PublicKey json.RawMessage `json:"publicKey,omitempty" doc:"for navigator.credentials.create"`
	ExpiresIn int64           `json:"expires_in" doc:"seconds in which it must be confirmed"`
}

// PasskeyOptions is what navigator.credentials takes, in the form of
// PublicKeyCredential.parseRequestOptionsFromJSON or parseCreationOptionsFromJSON.
type PasskeyOptions struct {
	PublicKey json.RawMessage `json:"publicKey"`
}

// PasskeyLogin is the body of POST /api/login/passkey.
type PasskeyLogin struct {
	Credential json.RawMessage `json:"credential" doc:"what navigator.credentials.get returned, as its toJSON writes it"`
	Audience   string          `json:"audience,omitempty" doc:"as in POST /api/login"`
}

// Recover is the body of POST /api/login/recover.
type Recover struct {
	RecoveryToken string `json:"recovery_token"`
	NewPassword   string `json:"new_password" format:"password"`
}

func (m *MFA) complete(w http.ResponseWriter, r *http.Request) {
	var in MFARequest
	if err := httpkit.ReadJSON(w, r, &in); err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	if in.MFAToken == "" || in.Method == "" {
		httpkit.WriteProblem(w, missing("mfa_token", "method"))
		return
	}
	a, err := oneAnswer(in.Method, in.Code, in.Credential)
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	a.RememberDevice = in.RememberDevice
	grant, done, err := m.Login.Complete(r.Context(), in.MFAToken, a, m.Proxies.Client(r))
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	view := grantView(grant)
	view.DeviceToken, view.BackupCodesLeft = done.Device, done.CodesLeft
	if done.CodesLeft != nil && *done.CodesLeft <= mfa.FewCodes {
		view.Warning = "few_left"
	}
	w.Header().Set("Pragma", "no-cache")
	httpkit.WriteJSON(w, http.StatusOK, view)
}

// oneAnswer returns what a body presents. Of two answers the method would say which one counts, and
// a client that sends both does not know what it does.
func oneAnswer(method, code string, credential json.RawMessage) (mfa.Answer, error) {
	if code != "" && len(credential) > 0 {
		return mfa.Answer{}, problem.New(problem.Invalid, "invalid_request", "present either a code or a credential, as the method says")
	}
	return mfa.Answer{Method: method, Code: code, Credential: credential}, nil
}

func (m *MFA) options(w http.ResponseWriter, r *http.Request) {
	var in MFAToken
	if err := httpkit.ReadJSON(w, r, &in); err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	if in.MFAToken == "" {
		httpkit.WriteProblem(w, missing("mfa_token"))
		return
	}
	options, err := m.Factors.PasskeyOptions(r.Context(), in.MFAToken, m.Proxies.Client(r).Address)
	writeOptions(w, options, err)
}

func writeOptions(w http.ResponseWriter, options json.RawMessage, err error) {
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	httpkit.WriteJSON(w, http.StatusOK, passkeyOptions(options))
}

func (m *MFA) enrol(w http.ResponseWriter, r *http.Request) {
	var in MFAEnrol
	if err := httpkit.ReadJSON(w, r, &in); err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	if in.MFAToken == "" || in.Method == "" {
		httpkit.WriteProblem(w, missing("mfa_token", "method"))
		return
	}
	address := m.Proxies.Client(r).Address
	var view Enrolment
	var err error
	switch in.Method {
	case mfa.TOTP:
		var e mfa.TOTPEnrolment
		e, err = m.Factors.EnrolTOTP(r.Context(), in.MFAToken, address)
		view = enrolment(e)
	case mfa.Passkey:
		var options json.RawMessage
		options, err = m.Factors.EnrolPasskey(r.Context(), in.MFAToken, address)
		view = passkeyEnrolment(options)
	default:
		err = mfa.ErrUnknownMethod
	}
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	httpkit.WriteJSON(w, http.StatusOK, view)
}

func enrolment(e mfa.TOTPEnrolment) Enrolment {
	return Enrolment{Secret: e.Secret, URI: e.URI, QR: e.QR, ExpiresIn: int64(e.ExpiresIn / time.Second)}
}

// passkeyOptions shows what package mfa has made for a browser.
func passkeyOptions(options json.RawMessage) PasskeyOptions {
	var o PasskeyOptions
	_ = json.Unmarshal(options, &o) // what we have made ourselves
	return o
}

func passkeyEnrolment(options json.RawMessage) Enrolment {
	return Enrolment{PublicKey: passkeyOptions(options).PublicKey, ExpiresIn: int64(mfa.PendingFor / time.Second)}
}

func (m *MFA) passkeyOptions(w http.ResponseWriter, r *http.Request) {
	var in struct{}
	if err := httpkit.ReadOptionalJSON(w, r, &in); err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	options, err := m.Factors.PasskeyLoginOptions(r.Context(), m.Proxies.Client(r).Address)
	writeOptions(w, options, err)
}

func (m *MFA) passkeyLogin(w http.ResponseWriter, r *http.Request) {
	var in PasskeyLogin
	if err := httpkit.ReadJSON(w, r, &in); err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	grant, err := m.Login.PasskeyLogin(r.Context(), in.Credential, in.Audience, m.Proxies.Client(r))
	writeGrant(w, grant, err)
}

func (m *MFA) recover(w http.ResponseWriter, r *http.Request) {
	var in Recover
	if err := httpkit.ReadJSON(w, r, &in); err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	if in.RecoveryToken == "" || in.NewPassword == "" {
		httpkit.WriteProblem(w, missing("recovery_token", "new_password"))
		return
	}
	if err := m.Factors.Recover(r.Context(), in.RecoveryToken, in.NewPassword, m.Proxies.Client(r).Address); err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// StepUp is the body of POST /api/login/step-up.
type StepUp struct {
	Method     string          `json:"method" enum:"password,totp,backup_code,passkey"`
	Password   string          `json:"password,omitempty" format:"password"`
	Code       string          `json:"code,omitempty" doc:"of an authenticator app, or a backup code"`
	Credential json.RawMessage `json:"credential,omitempty" doc:"of a passkey"`
}

// SteppedUp is an access token that says when and how its user has authenticated. The session goes
// on with the refresh token that it has.
type SteppedUp struct {
	AccessToken string `json:"access_token" doc:"a JWT by RFC 9068"`
	TokenType   string `json:"token_type" enum:"Bearer"`
	ExpiresIn   int64  `json:"expires_in" doc:"seconds that the access token lives"`
	SessionID   string `json:"session_id"`
}

func (m *MFA) mountStepUp(api *httpkit.API) {
	httpkit.Register(api, huma.Operation{
		OperationID: "step-up", Method: http.MethodPost, Path: "/api/login/step-up", Tags: []string{"second factors"},
		Summary: "Authenticate once more in a session, by password or by a second factor",
		Errors:  []int{http.StatusForbidden, http.StatusConflict},
	}, func(ctx context.Context, c httpkit.Caller, in *struct{ Body StepUp }) (*output[SteppedUp], error) {
		b := in.Body
		if b.Method == "password" && b.Password == "" {
			return nil, missing("password")
		}
		a, err := oneAnswer(b.Method, b.Code, b.Credential)
		if err != nil {
			return nil, err
		}
		grant, err := m.Login.StepUp(ctx, c.Token, b.Password, a, c.Client)
		return answerWith(func(g login.Grant) SteppedUp {
			return SteppedUp{g.AccessToken, "Bearer", int64(g.ExpiresIn / time.Second), g.SessionID}
		}, grant, err)
	})
	httpkit.Register(api, huma.Operation{
		OperationID: "step-up-options", Method: http.MethodPost, Path: "/api/login/step-up/options", Tags: []string{"second factors"},
		Summary: "The options for navigator.credentials.get, to authenticate once more by a passkey",
	}, func(ctx context.Context, c httpkit.Caller, _ *struct{}) (*output[PasskeyOptions], error) {
		options, err := m.Login.StepUpOptions(ctx, c.Token)
		return answerWith(passkeyOptions, options, err)
	})
}

// FactorList is what a user has besides the password.
type FactorList struct {
	Required bool     `json:"required" doc:"whether a login asks for a factor even where there is none"`
	Factors  []Factor `json:"factors"`
}

// Factor is one that a user has.
type Factor struct {
	ID         string       `json:"id"`
	Method     string       `json:"method" enum:"totp,passkey,backup_code"`
	Name       string       `json:"name,omitempty" doc:"of a passkey"`
	CreatedAt  httpkit.Time `json:"created_at"`
	LastUsedAt httpkit.Time `json:"last_used_at,omitzero"`
	Left       *int         `json:"left,omitempty" doc:"backup codes that are not spent"`
	Warning    string       `json:"warning,omitempty" enum:"few_left,counter_went_back,unreadable" doc:"few_left: two backup codes or fewer; counter_went_back: there may be a copy of the passkey, remove it; unreadable: an administrator has to remove it"`
	Synced     *bool        `json:"synced,omitempty" doc:"whether a passkey is copied between devices"`
	Transports []string     `json:"transports,omitempty" doc:"by which a passkey is reached"`
}

func factorList(o mfa.Overview) FactorList {
	return FactorList{o.Required, views(factor, o.Factors)}
}

func factor(i mfa.Info) Factor {
	f := Factor{ID: i.ID, Method: i.Method, Name: i.Name, CreatedAt: httpkit.At(i.CreatedAt), LastUsedAt: httpkit.At(i.UsedAt), Transports: i.Transports}
	switch {
	case i.Unreadable:
		f.Warning = "unreadable"
		return f
	case i.Cloned:
		f.Warning = "counter_went_back"
	}
	switch i.Method {
	case mfa.BackupCode:
		f.Left = &i.Left
		if i.Left <= mfa.FewCodes {
			f.Warning = "few_left"
		}
	case mfa.Passkey:
		f.Synced = &i.Synced
	}
	return f
}

// Code is a code that confirms an enrolment.
type Code struct {
	Code string `json:"code"`
}

// BackupCodes are shown once.
type BackupCodes struct {
	Codes     []string `json:"codes"`
	ExpiresIn int64    `json:"expires_in" doc:"seconds in which they must be confirmed"`
}

// CodesLeft is how many backup codes there are.
type CodesLeft struct {
	Left int `json:"left"`
}

// NewPasskey confirms a passkey.
type NewPasskey struct {
	Name       string          `json:"name,omitempty" doc:"by which the user knows it; left out: Passkey and a number"`
	Credential json.RawMessage `json:"credential" doc:"what navigator.credentials.create returned, as its toJSON writes it"`
}

// PasskeyName is another name for a passkey.
type PasskeyName struct {
	Name string `json:"name"`
}

func (m *MFA) mountOwn(api *httpkit.API) {
	const totp, codes, passkeys, one = "/api/mfa/totp", "/api/mfa/backup-codes", "/api/mfa/passkeys", "/api/mfa/passkeys/{id}"
	own := func(method, path, id, summary string, errors ...int) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Tags: []string{"second factors"}, Summary: summary, Errors: errors}
	}
	conflict := http.StatusConflict
	httpkit.Register(api, own(http.MethodGet, "/api/mfa", "get-mfa", "My second factors"),
		func(ctx context.Context, c httpkit.Caller, _ *struct{}) (*output[FactorList], error) {
			o, err := m.Factors.Overview(ctx, c.Actor(), c.Token.Subject)
			return answerWith(factorList, o, err)
		})
	httpkit.Register(api, own(http.MethodPost, totp, "enrol-totp", "Begin to enrol an authenticator app", conflict),
		func(ctx context.Context, c httpkit.Caller, _ *struct{}) (*output[Enrolment], error) {
			e, err := m.Factors.BeginTOTP(ctx, c.Actor())
			return answerWith(enrolment, e, err)
		})
	httpkit.Register(api, own(http.MethodPost, totp+"/confirm", "confirm-totp", "Enrol the authenticator app, end all my sessions, and begin a new one", conflict),
		func(ctx context.Context, c httpkit.Caller, in *struct{ Body Code }) (*output[Grant], error) {
			grant, err := m.Login.ConfirmTOTP(ctx, c.Token, in.Body.Code, c.Client)
			return answerWith(grantView, grant, err)
		})
	httpkit.Register(api, own(http.MethodDelete, totp, "remove-totp", "Remove the authenticator app, end all my sessions, and begin a new one", conflict, http.StatusNotFound),
		func(ctx context.Context, c httpkit.Caller, _ *struct{}) (*output[Grant], error) {
			grant, err := m.Login.RemoveTOTP(ctx, c.Token, c.Client)
			return answerWith(grantView, grant, err)
		})
	httpkit.Register(api, own(http.MethodPost, codes, "make-backup-codes", "Make ten backup codes, which are shown this once", conflict),
		func(ctx context.Context, c httpkit.Caller, _ *struct{}) (*output[BackupCodes], error) {
			made, err := m.Factors.BeginBackupCodes(ctx, c.Actor())
			return answerWith(func(codes []string) BackupCodes {
				return BackupCodes{codes, int64(mfa.PendingFor / time.Second)}
			}, made, err)
		})
	httpkit.Register(api, own(http.MethodPost, codes+"/confirm", "confirm-backup-codes", "Put the new backup codes in the place of the old ones, with one of them, which is not spent by that", conflict),
		func(ctx context.Context, c httpkit.Caller, in *struct{ Body Code }) (*output[CodesLeft], error) {
			left, err := m.Factors.ConfirmBackupCodes(ctx, c.Actor(), c.Token.Epoch, in.Body.Code)
			return answerWith(func(n int) CodesLeft { return CodesLeft{n} }, left, err)
		})
	httpkit.Register(api, own(http.MethodDelete, codes, "remove-backup-codes", "Remove my backup codes", conflict, http.StatusNotFound),
		func(ctx context.Context, c httpkit.Caller, _ *struct{}) (*noContent, error) {
			return nil, m.Factors.RemoveBackupCodes(ctx, c.Actor(), c.Token.Epoch)
		})
	httpkit.Register(api, own(http.MethodPost, passkeys, "enrol-passkey", "The options for navigator.credentials.create, to enrol a passkey", conflict),
		func(ctx context.Context, c httpkit.Caller, _ *struct{}) (*output[Enrolment], error) {
			options, err := m.Factors.BeginPasskey(ctx, c.Actor())
			return answerWith(passkeyEnrolment, options, err)
		})
	httpkit.Register(api, own(http.MethodPost, passkeys+"/confirm", "confirm-passkey", "Enrol the passkey, end all my sessions, and begin a new one", conflict),
		func(ctx context.Context, c httpkit.Caller, in *struct{ Body NewPasskey }) (*output[Grant], error) {
			grant, err := m.Login.ConfirmPasskey(ctx, c.Token, in.Body.Name, in.Body.Credential, c.Client)
			return answerWith(grantView, grant, err)
		})
	httpkit.Register(api, own(http.MethodPatch, one, "rename-passkey", "Give a passkey another name", conflict),
		func(ctx context.Context, c httpkit.Caller, in *struct {
			PathID
			Body PasskeyName
		}) (*noContent, error) {
			return nil, m.Factors.RenamePasskey(ctx, c.Actor(), c.Token.Epoch, in.ID, in.Body.Name)
		})
	httpkit.Register(api, own(http.MethodDelete, one, "remove-passkey", "Remove a passkey, end all my sessions, and begin a new one", conflict),
		func(ctx context.Context, c httpkit.Caller, in *PathID) (*output[Grant], error) {
			grant, err := m.Login.RemovePasskey(ctx, c.Token, in.ID, c.Client)
			return answerWith(grantView, grant, err)
		})
}

// NewRecovery is the body of POST /api/users/{id}/recovery.
type NewRecovery struct {
	KeepFactors bool  `json:"keep_factors,omitempty" doc:"the user has lost the password alone"`
	ExpiresIn   int64 `json:"expires_in,omitempty" minimum:"60" maximum:"604800" doc:"seconds that the token is good; left out: an hour"`
}

// Recovery is a recovery token, which is shown once.
type Recovery struct {
	RecoveryToken string       `json:"recovery_token" doc:"for POST /api/login/recover, once"`
	ExpiresAt     httpkit.Time `json:"expires_at"`
}

// PathFactor is a factor of a user (exported: huma sees no other embedded fields).
type PathFactor struct {
	PathID
	Factor string `path:"factor" maxLength:"128" doc:"the factor's id"`
}

func (m *MFA) mountAdministration(api *httpkit.API) {
	const factors = "/api/users/{id}/factors"
	httpkit.Register(api, endpoint(http.MethodGet, factors, "users", "list-factors", "The second factors of a user"),
		func(ctx context.Context, c httpkit.Caller, in *PathID) (*output[FactorList], error) {
			o, err := m.Factors.Overview(ctx, c.Actor(), in.ID)
			return answerWith(factorList, o, err)
		})
	httpkit.Register(api, endpoint(http.MethodDelete, factors, "users", "reset-factors", "Remove all second factors of a user, and end all sessions of the user"),
		func(ctx context.Context, c httpkit.Caller, in *PathID) (*noContent, error) {
			return nil, m.Factors.Reset(ctx, c.Actor(), in.ID, "")
		})
	httpkit.Register(api, endpoint(http.MethodDelete, factors+"/{factor}", "users", "remove-factor", "Remove one second factor of a user, and end all sessions of the user"),
		func(ctx context.Context, c httpkit.Caller, in *PathFactor) (*noContent, error) {
			return nil, m.Factors.Reset(ctx, c.Actor(), in.ID, in.Factor)
		})
	httpkit.Register(api, endpoint(http.MethodPost, "/api/users/{id}/recovery", "users", "issue-recovery", "Make a token with which a user who has lost the password or the factors gets back in, once"),
		func(ctx context.Context, c httpkit.Caller, in *struct {
			PathID
			Body NewRecovery
		}) (*output[Recovery], error) {
			r, err := m.Factors.IssueRecovery(ctx, c.Actor(), in.ID, in.Body.KeepFactors, time.Duration(in.Body.ExpiresIn)*time.Second)
			return answerWith(func(r mfa.Recovery) Recovery { return Recovery{r.Token, httpkit.At(r.ExpiresAt)} }, r, err)
		})
}
