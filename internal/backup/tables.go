package backup

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// A kind is the type of a column, independent of the kind of database.
type kind int

const (
	text    kind = iota
	integer      // also a time, in microseconds since 1970
	blob
	maybeBlob // a blob or NULL
)

// A column has a name and a type.
type column struct {
	name string
	kind kind
}

// A table is a table of the database that is in a backup.
type table struct {
	name string
	// where selects the rows; "" selects all. The other rows describe the database
	// itself and not its content, or are good only once.
	where string
	// head reports that every database has one row from its beginning, with a number
	// that counts up from 0. The row is not inserted; its number is set.
	head    bool
	columns []column
}

// Tables with rules of their own.
const (
	recordsTable = "state_records"
	keysTable    = "signing_keys"
	macsTable    = "registered_keys"
	statesTable  = "key_states"
	factorsTable = "factors"
)

// A factor is a link by which a user recovers, or not. No link is in a backup: one that was used
// after the backup would be good again.
const (
	recovery    = "kind = 'recovery'"
	notRecovery = "kind <> 'recovery'"
)

// tables are all tables but that of the replicas, which enter by themselves. Each stands
// after the tables that it refers to. A test fails when the schema has another table.
var tables = []table{
	{name: "settings", where: "name <> 'schema_oldest'", columns: columns("name value")},
	{name: "users", columns: columns("id username name_key email first_name last_name password_hash disabled:int epoch:int session_epoch:int created_at:int updated_at:int version:int")},
	{name: "identity_marks", columns: columns("digest kind user_id until_at:int")},
	{name: "verified_emails", columns: columns("user_id email")},
	{name: "usergroups", columns: columns("id name name_key created_at:int updated_at:int version:int")},
	{name: "claims", columns: columns("id name name_key short_name held_value created_at:int updated_at:int version:int")},
	{name: "memberships", columns: columns("user_id group_id user_key")},
	{name: "group_claims", columns: columns("group_id claim_id")},
	{name: keysTable, columns: columns("id instance algorithm public_jwk:blob sealed:maybe created_at:int activate_at:int retire_at:int remove_at:int revoked_at:int")},
	{name: macsTable, columns: columns("id mac:maybe version:int")},
	{name: statesTable, columns: columns("id mac:maybe source_mac:maybe")},
	{name: "used_kids", columns: columns("id")},
	{name: factorsTable, where: notRecovery, columns: columns("id user_id kind digest data:blob created_at:int version:int")},
	{name: "registry_head", head: true, columns: columns("version:int")},
	{name: "revocation_head", head: true, columns: columns("seq:int")}, // the log_id is the new database's
	{name: "revocations", columns: columns("seq:int kind subject epoch:int issued_before:int expires_at:int created_at:int actor reason")},
	{name: "audit_events", columns: columns("id at_time:int actor action target outcome address detail")},
	{name: "audit_seals", columns: columns("seq:int content:blob mac:blob")},
	{name: recordsTable, columns: columns("kind owner id value:blob version:int expires_at:int")},
	{name: "state_rates", columns: columns("kind owner id tat:int expires_at:int")},
}

// columns reads "id epoch:int value:blob sealed:maybe".
func columns(list string) []column {
	var all []column
	for word := range strings.FieldsSeq(list) {
		name, k, _ := strings.Cut(word, ":")
		all = append(all, column{name, map[string]kind{"": text, "int": integer, "blob": blob, "maybe": maybeBlob}[k]})
	}
	return all
}

func (t table) names() []string {
	list := make([]string, len(t.columns))
	for i, c := range t.columns {
		list[i] = c.name
	}
	return list
}

// rows is the SELECT for the table's rows.
func (t table) rows() string {
	query := "SELECT " + strings.Join(t.names(), ", ") + " FROM " + t.name
	if t.where != "" {
		query += " WHERE " + t.where
	}
	return query
}

// insert is the INSERT for n rows.
func (t table) insert(n int) string {
	row := "(?" + strings.Repeat(", ?", len(t.columns)-1) + ")"
	return "INSERT INTO " + t.name + " (" + strings.Join(t.names(), ", ") + ") VALUES " +
		row + strings.Repeat(", "+row, n-1)
}

// known returns the table of a backup as this version knows it, with the columns that are
// in the backup.
func known(name string, names []string) (table, error) {
	for _, t := range tables {
		if t.name != name {
			continue
		}
		all := t.columns
		t.columns = nil
		for _, n := range names {
			before := len(t.columns)
			for _, c := range all {
				if c.name == n {
					t.columns = append(t.columns, c)
				}
			}
			if len(t.columns) == before {
				return t, fmt.Errorf("%w: it has a column %s.%s", ErrNotBackup, name, n)
			}
		}
		if len(t.columns) == 0 {
			return t, fmt.Errorf("%w: its table %s has no column", ErrNotBackup, name)
		}
		return t, nil
	}
	return table{}, fmt.Errorf("%w: it has a table %s", ErrNotBackup, name)
}

// A row holds the values of one row. It is used for all rows of a table.
type row struct {
	columns []column
	texts   []string
	ints    []int64
	blobs   []sql.Null[[]byte]
}

func newRow(t table) *row {
	n := len(t.columns)
	return &row{t.columns, make([]string, n), make([]int64, n), make([]sql.Null[[]byte], n)}
}

// dest returns the destinations for Scan.
func (r *row) dest() []any {
	list := make([]any, len(r.columns))
	for i, c := range r.columns {
		switch c.kind {
		case text:
			list[i] = &r.texts[i]
		case integer:
			list[i] = &r.ints[i]
		default:
			list[i] = &r.blobs[i]
		}
	}
	return list
}

// values returns the values as they are encoded.
func (r *row) values() ([]any, error) {
	list := make([]any, len(r.columns))
	for i, c := range r.columns {
		switch c.kind {
		case text:
			if !utf8.ValidString(r.texts[i]) {
				return nil, fmt.Errorf("a value of the column %s is no text", c.name)
			}
			list[i] = r.texts[i]
		case integer:
			list[i] = r.ints[i]
		case maybeBlob:
			if r.blobs[i].Valid {
				list[i] = r.blobs[i].V
			}
		default:
			list[i] = append([]byte{}, r.blobs[i].V...) // never nil
		}
	}
	return list, nil
}

// decode reads an encoded row as arguments of an INSERT.
func decode(t table, raw []byte) ([]any, error) {
	var fields []json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil || len(fields) != len(t.columns) {
		return nil, fmt.Errorf("%w: a row of %s cannot be read", ErrDamaged, t.name)
	}
	args := make([]any, len(fields))
	for i, c := range t.columns {
		var err error
		switch c.kind {
		case text:
			args[i], err = as[string](fields[i])
		case integer:
			args[i], err = as[int64](fields[i])
		case blob:
			args[i], err = as[[]byte](fields[i])
		case maybeBlob:
			if string(fields[i]) != "null" {
				args[i], err = as[[]byte](fields[i])
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %s.%s cannot be read", ErrDamaged, t.name, c.name)
		}
	}
	return args, nil
}

func as[T any](raw json.RawMessage) (T, error) {
	var v T
	if string(raw) == "null" {
		return v, ErrDamaged
	}
	err := json.Unmarshal(raw, &v)
	return v, err
}
