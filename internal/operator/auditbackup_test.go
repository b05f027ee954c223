package operator

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// at is the configuration of a replica with a storage key and a database.
func at(url string) *config.Config {
	cfg := config.Default()
	cfg.Database.URL, cfg.Storage.Key = url, storageKeyOf(1)
	return cfg
}

func openParts(t *testing.T, cfg *config.Config) *Parts {
	t.Helper()
	p, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// backUp makes a backup in a directory, and returns its path.
func backUp(t *testing.T, dir string, cfg *config.Config, passphrase string) string {
	t.Helper()
	path := filepath.Join(dir, rand.Text())
	if _, err := Backup(t.Context(), cfg, slog.New(slog.DiscardHandler), path, passphrase); err != nil {
		t.Fatal(err)
	}
	return path
}

// restored restores a backup into the database of cfg, and opens it.
func restored(t *testing.T, cfg *config.Config, path, passphrase string) *Parts {
	t.Helper()
	if _, err := Restore(t.Context(), cfg, slog.New(slog.DiscardHandler), path, passphrase, false); err != nil {
		t.Fatal(err)
	}
	return openParts(t, cfg)
}

// verified is what the command finds.
func verified(t *testing.T, p *Parts, cfg *config.Config, noted audit.Head) audit.Report {
	t.Helper()
	r, err := p.VerifyAudit(t.Context(), cfg, noted)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sealedTrail makes a database with five seals over 25 events of a day ago, and then, in no seal yet,
// the event "late". It returns a backup and the newest seal.
func sealedTrail(t *testing.T, dir string, cfg *config.Config) (string, audit.Head) {
	t.Helper()
	p := openParts(t, cfg)
	trail, chain := replicaTrail(t, p, cfg, 24*time.Hour)
	for i := range 25 {
		trail.Record(t.Context(), store.AuditEvent{Actor: "alice", Action: "user.update", Target: fmt.Sprint(i), Outcome: audit.OK, Detail: "Ünïcödé 🗝'\\"})
		if i%5 < 4 {
			continue
		}
		if err := chain.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	trail.Record(t.Context(), store.AuditEvent{Action: "late", Outcome: audit.OK})
	return backUp(t, dir, cfg, ""), chain.Status().Newest
}

// A backup has the seals: in whatever database it is restored, the trail is what was sealed, and the
// replica that starts on it goes on with the chain. What was in no seal yet is in its first one.
func TestRestoredTrail(t *testing.T) {
	dir := t.TempDir()
	file, noted := sealedTrail(t, dir, at(sqldbtest.SQLite(t)))
	seals, sealed, all := 5, 25, 26
	for _, to := range []struct{ name, url string }{
		{"SQLite to SQLite", sqldbtest.SQLite(t)}, {"SQLite to PostgreSQL", testenv.Postgres(t)}, {"PostgreSQL to SQLite", sqldbtest.SQLite(t)},
	} {
		t.Run(to.name, func(t *testing.T) {
			cfg := at(to.url)
			p := restored(t, cfg, file, "")
			all++ // the event of the restore
			if r := verified(t, p, cfg, noted); r.Found > 0 || r.Seals != seals || r.Events != sealed || r.Events+r.Waiting != all || r.Newest != noted {
				t.Fatalf("restored, with %d seals over %d of %d events: %+v", seals, sealed, all, r)
			}
			trail, chain := replicaTrail(t, p, cfg, 0)
			trail.Record(t.Context(), store.AuditEvent{Action: "login", Outcome: audit.OK})
			all++
			if err := chain.Seal(t.Context()); err != nil {
				t.Fatal(err)
			}
			r := verified(t, p, cfg, noted)
			// Events of restores are sealed if they are 5 s old by now.
			if r.Found > 0 || r.Seals != seals+1 || r.Events <= sealed || r.Events+r.Waiting != all {
				t.Errorf("when a replica has started: %+v", r)
			}
			if s := chain.Status(); s.Faults != 0 {
				t.Errorf("the replica finds %d faults", s.Faults)
			}
			file, noted, seals, sealed = backUp(t, dir, cfg, ""), r.Newest, r.Seals, r.Events
		})
	}
}

// Whoever has a backup and its passphrase, and not the storage key, can make another backup of what is in
// it. What they change in a sealed part of the trail is found after the restore; a shorter trail is found
// by a seal that was noted; what came after the last seal is not protected.
func TestForgedBackup(t *testing.T) {
	dir, theirs := t.TempDir(), at(sqldbtest.SQLite(t))
	_, noted := sealedTrail(t, dir, theirs)
	db := openParts(t, theirs).DB
	for _, s := range []string{
		"UPDATE audit_events SET actor = 'mallory' WHERE target = '3'",
		"DELETE FROM audit_events WHERE target = '8'",
		"DELETE FROM audit_events WHERE target BETWEEN '20' AND '24'", // those of the newest seal
		"DELETE FROM audit_seals WHERE seq = 5",
		"UPDATE audit_events SET actor = 'mallory' WHERE action = 'late'",
	} {
		if n, err := db.Exec(t.Context(), s); err != nil || n == 0 {
			t.Fatalf("%s: %d rows, %v", s, n, err)
		}
	}
	cfg := at(sqldbtest.SQLite(t))
	const passphrase = "correct horse battery"
	p := restored(t, cfg, backUp(t, dir, theirs, passphrase), passphrase)
	want := []string{"has been changed since it was sealed", "has been deleted since it was sealed"}
	for _, head := range []audit.Head{{}, noted} {
		if head == noted {
			want = append(want, "seal 5 was noted and is missing: the end of the trail has been cut off")
		}
		r := verified(t, p, cfg, head)
		for _, words := range want {
			if !slices.ContainsFunc(r.Problems, func(p audit.Problem) bool { return strings.Contains(p.Text, words) }) {
				t.Errorf("with the seal %q noted: want %q, got %+v", head, words, r)
			}
		}
		if r.Found != len(want) || r.Seals != 4 || r.Events != 18 {
			t.Errorf("with the seal %q noted: %+v", head, r)
		}
	}
}
