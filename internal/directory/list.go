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
	// Descending turns the order round: the last name comes first. What stands before an item
	// is on the descending page After its key.
	Descending bool
}

// A List is one page.
type List[T any] struct {
	Items []T
	Next  string // for Page.After; empty: this is the last page
}

// list reads one page. fold makes the key of a prefix; key returns that of an item.
func list[T any](ctx context.Context, p Page, fold func(string) (string, error), key func(T) string,
	ask func(context.Context, store.Page) ([]T, error)) (List[T], error) {
	p, err := p.checked()
	if err != nil {
		return List[T]{}, err
	}
	prefix := ""
	if p.Prefix != "" {
		if prefix, err = fold(p.Prefix); err != nil {
			return List[T]{}, err
		}
	}
	items, err := ask(ctx, p.stored(prefix))
	if err != nil {
		return List[T]{}, fault(err)
	}
	return firstOf(items, p.Limit, key), nil
}

// checked returns the page with its limit, or what is wrong with it.
func (p Page) checked() (Page, error) {
	if p.Limit == 0 {
		p.Limit = DefaultPage
	}
	if p.Limit < 0 || p.Limit > MaxPage {
		return p, problem.New(problem.Invalid, "invalid_limit", "a page has 1 to %d items", MaxPage)
	}
	if !utf8.ValidString(p.After) || strings.ContainsRune(p.After, 0) {
		return p, problem.New(problem.Invalid, "invalid_cursor", "this is not where a page ended")
	}
	return p, nil
}

// stored asks the store for the page and one item more, which shows that there is a next page.
func (p Page) stored(prefix string) store.Page {
	return store.Page{After: p.After, Prefix: prefix, Limit: p.Limit + 1, Descending: p.Descending}
}

// firstOf returns the page of the first items, of which one more than limit was asked for.
func firstOf[T any](items []T, limit int, key func(T) string) List[T] {
	l := List[T]{Items: items}
	if len(items) > limit {
		l.Items = items[:limit]
		l.Next = key(l.Items[limit-1])
	}
	return l
}
