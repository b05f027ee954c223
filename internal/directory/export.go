package directory

import (
	"context"
	"io"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/userfile"
)

// ExportUsers writes all users with their groups, in the order of their usernames, page by page.
// A user who is changed meanwhile is there as they were or as they are. It needs UsersRead for
// each page, and is in the audit trail. After an error, the file has a part of the users.
func (s *Service) ExportUsers(ctx context.Context, actor Actor, w io.Writer, form userfile.Form) error {
	const action = "users.export"
	if err := s.Authorize(ctx, actor, UsersRead); err != nil {
		s.denied(ctx, actor, action, "", err)
		return err
	}
	file, err := userfile.NewWriter(w, form)
	if err != nil {
		return err
	}
	s.Audit.Record(ctx, store.AuditEvent{Actor: actor.ID, Action: action, Outcome: audit.OK, Address: actor.Address, Detail: string(form)})
	page := Page{Limit: MaxPage}
	for {
		list, err := s.Users(ctx, actor, page)
		if err != nil {
			return err
		}
		ids := make([]string, len(list.Items))
		for i, u := range list.Items {
			ids[i] = u.ID
		}
		groups, err := s.Store.GroupsOfUsers(ctx, ids)
		if err != nil {
			return fault(err)
		}
		users := make([]userfile.User, len(list.Items))
		for i, u := range list.Items {
			users[i] = userfile.User{
				Username: u.Username, Email: u.Email, EmailVerified: u.EmailVerified,
				FirstName: u.FirstName, LastName: u.LastName, Disabled: u.Disabled,
			}
			for _, g := range groups[u.ID] {
				users[i].Groups = append(users[i].Groups, g.Name)
			}
		}
		if err := file.Write(users); err != nil {
			return err
		}
		if page.After = list.Next; page.After == "" {
			return file.Close()
		}
	}
}
