package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/watchword-auth/watchword/internal/directory"
)

// A table is aligned columns under their names.
type table struct{ w *tabwriter.Writer }

func newTable(out io.Writer, names ...string) *table {
	t := &table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	t.row(names...)
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		if cells[i] = strings.ReplaceAll(printable([]byte(c)), "\n", `\u000a`); c == "" { // of clients, too
			cells[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t *table) flush() error { return t.w.Flush() }

// when writes a moment as people read it and programs sort it.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// each calls do for every item of a list, page by page.
func each[T any](ctx context.Context, prefix string, ask func(context.Context, directory.Actor, directory.Page) (directory.List[T], error), do func(T)) error {
	page := directory.Page{Prefix: prefix, Limit: directory.MaxPage}
	for {
		list, err := ask(ctx, directory.System(), page)
		if err != nil {
			return err
		}
		for _, item := range list.Items {
			do(item)
		}
		if list.Next == "" {
			return nil
		}
		page.After = list.Next
	}
}
