package directory

import (
	"context"
	"strings"
	"unicode/utf8"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
)

// How many items a page has.
const (
	DefaultPage = 50
	MaxPage     = 200
)

// A Page asks for a part of a list, which is ordered by the keys of names.
type Page struct {
	After  string // List.Next of the page before; empty: from the start
	Prefix string // of the names, compared as names are
	Limit  int    // 1 to MaxPage; 0: DefaultPage
}

// A List is one page.
type List[T any] struct {
	Items []T
	Next  string // for Page.After; empty: this is the last page
}

// list reads one page. fold makes the key of a prefix; key returns that of an item.
func list[T any](ctx context.Context, p Page, fold func(string) (string, error), key func(T) string,
	ask func(context.Context, store.Page) ([]T, error)) (List[T], error) {
	if p.Limit == 0 {
		p.Limit = DefaultPage
	}
	if p.Limit < 0 || p.Limit > MaxPage {
		return List[T]{}, problem.New(problem.Invalid, "invalid_limit", "a page has 1 to %d items", MaxPage)
	}
	if !utf8.ValidString(p.After) || strings.ContainsRune(p.After, 0) {
		return List[T]{}, problem.New(problem.Invalid, "invalid_cursor", "this is not where a page ended")
	}
	prefix := ""
	if p.Prefix != "" {
		var err error
		if prefix, err = fold(p.Prefix); err != nil {
			return List[T]{}, err
		}
	}
	items, err := ask(ctx, store.Page{After: p.After, Prefix: prefix, Limit: p.Limit + 1})
	if err != nil {
		return List[T]{}, fault(err)
	}
	l := List[T]{Items: items}
	if len(items) > p.Limit {
		l.Items = items[:p.Limit]
		l.Next = key(l.Items[p.Limit-1])
	}
	return l, nil
}
