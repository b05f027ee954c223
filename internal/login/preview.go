package login

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

var errDisabled = problem.New(problem.Denied, "user_disabled", "this user is disabled and gets no token")

// A Preview is the access token that a user would get now. It is not signed.
type Preview struct {
	// Header and Claims are JSON, indented, in the order of a real token. Its jti and sid are
	// zero, because each token and each session has one of its own.
	Header, Claims json.RawMessage
	ExpiresIn      time.Duration
	// Length of the token in compact form, in bytes, as it counts against
	// accesstoken.DefaultMaxLength. With some keys the token is a little shorter.
	Length int
	// Reduced reports that the user is a superuser whose claims are too long for a token, so
	// that only those for administration are in it.
	Reduced bool
	// Refused is why the user would get no token, and Claims are what it would say otherwise:
	// the user is disabled, has no credentials or no second factor yet, or the claims are too
	// long. It is a problem; nil: the user would get the token.
	Refused error
}

// Preview returns the access token that a user, named by id or username, would get at this replica
// by a login now, with the methods of mfa.Service.Ahead. The audience is as in Begin. The holder
// of by needs directory.UsersRead and all rights of the user. It signs and changes nothing. The
// error says that there is no preview.
func (s *Service) Preview(ctx context.Context, by *accesstoken.Token, user, audience string, client Client) (Preview, error) {
	found, err := s.People.AuthorizeOn(ctx, actor(by, client), directory.UsersRead, user)
	if err != nil {
		return Preview{}, err
	}
	aud, err := s.audience(audience)
	if err != nil {
		return Preview{}, err
	}
	signer, err := s.Keys.Signer()
	if err != nil {
		return Preview{}, err
	}
	u, claims, err := s.People.Subject(ctx, found.ID)
	if errors.Is(err, store.ErrNotFound) {
		return Preview{}, errNoUser
	}
	if err != nil {
		return Preview{}, unavailable(err)
	}
	u.Epoch = max(u.Epoch, s.View.Floor()) // which a login would raise it to; see atFloor
	stored, err := s.Store.User(ctx, u.ID)
	if err != nil {
		return Preview{}, unavailable(err)
	}
	amr, refused, err := s.Factors.Ahead(ctx, stored, claims)
	if err != nil {
		return Preview{}, err
	}
	if u.Disabled {
		refused = errDisabled
	}
	now := s.Now()
	sess := session.Session{
		ID: uuid.Nil.String(), UserID: u.ID, CreatedAt: now, ExpiresAt: now.Add(s.Sessions.TTL), AuthTime: now, AMR: amr, Audience: audience,
	}
	expires := s.expiry(sess, now)
	var draft token.Draft
	reduced, err := fitting(claims, func(claims map[string]string) (err error) {
		draft, err = signer.Draft(s.claims(u, claims, noID, aud, sess, now, expires))
		return err
	})
	switch {
	case errors.Is(err, token.ErrTooLong) && refused == nil:
		refused = token.ErrTooLong
	case err != nil && !errors.Is(err, token.ErrTooLong):
		return Preview{}, problem.From(err)
	}
	return Preview{
		Header: indented(draft.Header), Claims: indented(draft.Payload),
		ExpiresIn: expires.Sub(now), Length: draft.Length, Reduced: reduced, Refused: refused,
	}, nil
}

// noID is a jti of which no token is.
var noID = base64.RawURLEncoding.EncodeToString(make([]byte, 16))

// indented returns JSON in lines.
func indented(raw []byte) json.RawMessage {
	var lines bytes.Buffer
	if err := json.Indent(&lines, raw, "", "  "); err != nil {
		return raw
	}
	return lines.Bytes()
}
