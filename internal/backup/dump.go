package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
)

// A Summary describes the content of a backup.
type Summary struct {
	Created time.Time
	Rows    map[string]int // by table
}

// A line is a value of the text that is not a row.
type line struct {
	Head  *head          `json:"head,omitempty"`
	Table *tableLine     `json:"table,omitempty"`
	Tail  map[string]int `json:"tail,omitempty"` // rows by table
}

type head struct {
	Created time.Time `json:"created"`
}

type tableLine struct {
	Name    string   `json:"name"`
	Columns []string `json:"columns"`
}

// Dump writes a backup of the database as it is now. Its memory does not grow with the
// database. Restore refuses a file that Dump did not finish.
func Dump(ctx context.Context, db *sqldb.DB, to io.Writer, secret Secret, now time.Time) (Summary, error) {
	w, err := newWriter(to, secret)
	if err != nil {
		return Summary{}, err
	}
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	done := Summary{Created: now.UTC().Truncate(time.Second), Rows: map[string]int{}}
	err = db.Snapshot(ctx, func(ctx context.Context, q sqldb.Q) error {
		if err := out.Encode(line{Head: &head{done.Created}}); err != nil {
			return err
		}
		for _, t := range tables {
			n, err := dumpTable(ctx, q, t, out)
			if err != nil {
				return fmt.Errorf("backup: %s: %w", t.name, err)
			}
			done.Rows[t.name] = n
		}
		return out.Encode(line{Tail: done.Rows})
	})
	if err != nil {
		return Summary{}, err
	}
	return done, w.Close()
}

func dumpTable(ctx context.Context, q sqldb.Q, t table, out *json.Encoder) (int, error) {
	if err := out.Encode(line{Table: &tableLine{t.name, t.names()}}); err != nil {
		return 0, err
	}
	rows, err := q.Query(ctx, t.rows())
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	r, n := newRow(t), 0
	dest := r.dest()
	for ; rows.Next(); n++ {
		if err := rows.Scan(dest...); err != nil {
			return n, err
		}
		values, err := r.values()
		if err != nil {
			return n, err
		}
		if err := out.Encode(values); err != nil {
			return n, err
		}
	}
	return n, rows.Err()
}

// read calls visit with each row of a backup. It returns nil only if it has read the whole
// backup.
func read(from io.Reader, secret Secret, visit func(t table, raw []byte) error) (Summary, error) {
	var done Summary
	r, err := newReader(from, secret)
	if err != nil {
		return done, err
	}
	in := json.NewDecoder(r)
	var first line
	if err := in.Decode(&first); err != nil {
		return done, unreadable(err)
	}
	if first.Head == nil {
		return done, ErrNotBackup
	}
	done = Summary{Created: first.Head.Created, Rows: map[string]int{}}
	var t table
	for {
		var raw json.RawMessage
		if err := in.Decode(&raw); err != nil {
			return done, unreadable(err)
		}
		if raw[0] == '[' {
			if t.name == "" {
				return done, ErrDamaged
			}
			if err := visit(t, raw); err != nil {
				return done, err
			}
			done.Rows[t.name]++
			continue
		}
		var next line
		if err := json.Unmarshal(raw, &next); err != nil {
			return done, ErrDamaged
		}
		switch {
		case next.Table != nil:
			if t, err = known(next.Table.Name, next.Table.Columns); err != nil {
				return done, err
			}
			if _, twice := done.Rows[t.name]; twice {
				return done, ErrDamaged
			}
			done.Rows[t.name] = 0
		case next.Tail == nil || !maps.Equal(next.Tail, done.Rows):
			return done, ErrDamaged
		default:
			if _, err := in.Token(); !errors.Is(err, io.EOF) {
				return done, unreadable(err)
			}
			return done, nil
		}
	}
}

// unreadable returns ErrDamaged for an error in the text, or err if reading the file
// failed.
func unreadable(err error) error {
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &syntax), errors.As(err, &wrong):
		return ErrDamaged
	}
	return err
}
