package admin

import (
	"errors"
	"net/url"
	"slices"

	"github.com/a-h/templ"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// perPage is how many items a page of a list has.
const perPage = 50

// A listing is what a page of a list has besides its items.
type listing struct {
	Path       string // of the list
	Search     string // what was searched for
	Descending bool
	Elsewhere  bool // this is not the first page
	Pages      page.Pages
}

// listed returns the page of a list that the query of a visit asks for: after an item or before
// one, in the order of names or the other way round. What cannot be searched for finds nothing.
func listed[T any](v *visit, path string, key func(T) string, ask func(directory.Page) (directory.List[T], error)) ([]T, listing, error) {
	l := listing{Path: path, Search: v.Field("q"), Descending: v.Field("order") == "desc"}
	after, before := v.Field("after"), v.Field("before")
	l.Elsewhere = after != "" || before != ""
	p := directory.Page{After: after, Limit: perPage, Descending: l.Descending}
	if before != "" {
		p.After, p.Descending = before, !l.Descending
	}
	found, err := ask(p)
	if problem.From(err).Kind == problem.Invalid {
		found, err = directory.List[T]{}, nil
	}
	if err != nil {
		return nil, l, err
	}
	items := found.Items
	if before != "" {
		slices.Reverse(items)
	}
	if l.Elsewhere {
		l.Pages.First = l.href("", "")
	}
	if len(items) == 0 {
		return nil, l, nil
	}
	if more := found.Next != ""; after != "" || before != "" && more {
		l.Pages.Previous = l.href("before", key(items[0]))
	}
	if before != "" || found.Next != "" {
		l.Pages.Next = l.href("after", key(items[len(items)-1]))
	}
	return items, l, nil
}

// href leads to another page of the list.
func (l listing) href(name, value string) string {
	order := ""
	if l.Descending {
		order = "desc"
	}
	return linkTo(l.Path, "q", l.Search, "order", order, name, value)
}

// byName is the column by which the list is sorted.
func (l listing) byName(label string) page.Column {
	other := l
	other.Descending = !l.Descending
	c := page.Column{Label: label, Href: other.href("", ""), Sorted: "ascending"}
	if l.Descending {
		c.Sorted = "descending"
	}
	return c
}

// searching are the attributes of the field of a search that shows what it finds while one
// types. Without scripts, its button does.
func (l listing) searching() templ.Attributes {
	return templ.Attributes{
		"hx-get": l.Path, "hx-trigger": "input changed delay:200ms, search", "hx-target": "#list", "hx-swap": "outerHTML",
		"hx-sync": "this:replace", "hx-include": "closest form",
	}
}

// linkTo returns a path with a query of pairs of a name and a value, without those whose value is
// empty.
func linkTo(path string, pairs ...string) string {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// retry shows a page again, with what an error says. Errors that are not for the page to say are
// returned: those of ours, and those that lead to the sign-in.
func (v *visit) retry(err error, l func(page.Message) page.Layout) error {
	return v.again(err, func(m page.Message) (page.Layout, error) { return l(m), nil })
}

// again is retry with a page that may not be for the visitor, who then gets the error alone.
func (v *visit) again(err error, l func(page.Message) (page.Layout, error)) error {
	switch {
	case errors.Is(err, revocation.ErrRevoked): // since the cookie was recognised
		return login.ErrNoBrowser.Because(err)
	case problem.From(err).Kind == problem.Internal, problem.From(err).Kind == problem.Unauthenticated:
		return err
	}
	m := v.Problem(err)
	if text, ok := inOtherWords[m.Code]; ok {
		m.Text = text
	}
	layout, failed := l(m)
	if failed != nil {
		return err
	}
	httpkit.NoteCause(v.Writer, err)
	return v.Show(m.Status, layout)
}

// inOtherWords are the texts of problems of which a page can say more than the API does.
var inOtherWords = map[string]string{
	directory.ErrPermissionMissing.Code: "Your account does not have the right to do this.",
	directory.ErrBeyondOwnRights.Code:   "This touches rights that your own account does not hold. Somebody who holds them has to do it.",
	directory.ErrChangedMeanwhile.Code:  "Somebody else changed this while you were at it. What you typed is still here: compare it with what it is now, and save again if you are sure.",
}

// errorOf returns the text of a message if it is about a field: if its code is one of these.
func errorOf(m page.Message, codes ...string) string {
	if slices.Contains(codes, m.Code) {
		return m.Text
	}
	return ""
}

// An undo is what has just been done, and the form that does the reverse. What is done is not
// taken from the address: the page looks whether it is so.
type undo struct {
	Text, Action string
	Name, Value  string // of a field
}
