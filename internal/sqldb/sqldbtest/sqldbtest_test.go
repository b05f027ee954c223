package sqldbtest

import "testing"

// Each database has the whole schema, rows of its own, and a revocation log of its own.
func TestOpen(t *testing.T) {
	logs := map[string]bool{}
	for range 3 {
		db := Open(t)
		if pending, err := db.Pending(t.Context()); err != nil || len(pending) > 0 {
			t.Errorf("pending are %v, %v", pending, err)
		}
		var log, check string
		var rows int
		for query, to := range map[string]any{
			"SELECT log_id FROM revocation_head":                 &log,
			"SELECT COUNT(*) FROM settings WHERE name = 'dirty'": &rows,
			"PRAGMA integrity_check":                             &check,
		} {
			if err := db.QueryRow(t.Context(), query).Scan(to); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
		}
		if check != "ok" || rows != 0 || len(log) != 32 || logs[log] {
			t.Errorf("its integrity is %q, it has %d rows of another one, and its log is %q", check, rows, log)
		}
		logs[log] = true
		if _, err := db.Exec(t.Context(), "INSERT INTO settings (name, value) VALUES ('dirty', '1')"); err != nil {
			t.Error(err)
		}
	}
}
