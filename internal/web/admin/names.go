package admin

import (
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/directory"
)

// names returns the usernames of those of the ids that are users', by id. A visitor who may not
// see users gets none but their own.
func (f *face) names(v *visit, ids ...string) (map[string]string, error) {
	names := map[string]string{v.User.ID: v.User.Username}
	var asked []string
	for _, id := range ids {
		if id != v.User.ID && uuid.Validate(id) == nil { // all users have such ids
			asked = append(asked, id)
		}
	}
	if len(asked) == 0 || !v.can(directory.UsersRead) {
		return names, nil
	}
	users, err := f.Directory.UsersWithIDs(v.Request.Context(), v.Actor(), asked)
	for _, u := range users {
		names[u.ID] = u.Username
	}
	return names, err
}
