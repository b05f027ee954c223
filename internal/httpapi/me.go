package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/login"
)

// Me is what users change about themselves.
type Me struct{ Login *login.Service }

// PasswordChange is the body of PUT /api/me/password.
type PasswordChange struct {
	CurrentPassword string `json:"current_password" format:"password"`
	NewPassword     string `json:"new_password" format:"password"`
}

// Mount adds the routes.
func (m *Me) Mount(api *httpkit.API) {
	httpkit.Register(api, huma.Operation{
		OperationID: "change-own-password", Method: http.MethodPut, Path: "/api/me/password", Tags: []string{"sessions"},
		Summary: "Change my password, end all my sessions, and begin a new one",
		Errors:  []int{http.StatusConflict, http.StatusTooManyRequests},
	}, m.changePassword)
}

func (m *Me) changePassword(ctx context.Context, c httpkit.Caller, in *struct{ Body PasswordChange }) (*output[Grant], error) {
	if in.Body.CurrentPassword == "" || in.Body.NewPassword == "" {
		return nil, missing("current_password", "new_password")
	}
	grant, err := m.Login.ChangePassword(ctx, c.Token, in.Body.CurrentPassword, in.Body.NewPassword, c.Client)
	return answerWith(grantView, grant, err)
}
