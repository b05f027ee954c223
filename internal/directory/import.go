package directory

import (
	"bytes"
	"cmp"
	"compress/flate"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/userfile"
)

const (
	actionImport = "users.import"
	kindImport   = "import"
	// keepProgress is how long the progress of an import can be read after its last row.
	keepProgress = 24 * time.Hour
	// noteEvery is how often the progress is written.
	noteEvery = time.Second
	// silentAfter is how long a live import may go without writing its progress: some rows that
	// wait for the database, and what two clocks differ by.
	silentAfter = time.Minute
	// keepImports is how many imports of one actor are kept.
	keepImports = 20
	// MaxRefusals bounds Progress.Refusals.
	MaxRefusals = 1000
	// rowAttempts is how often a row is tried while the database cannot be asked, and rowPause
	// what lies between.
	rowAttempts = 5
	rowPause    = 2 * time.Second
)

var (
	// ErrImportRuns: the actor has an import that has not ended.
	ErrImportRuns = problem.New(problem.Conflict, "import_running", "another import of yours is running; wait for its end")
	// ErrImportNotFound: the owner has no such import, or no more.
	ErrImportNotFound = problem.New(problem.NotFound, "import_not_found", "there is no such import; the report of one is kept for a day")

	errNoRows       = problem.New(problem.Invalid, "file_empty", "the file has no users")
	errImportEnded  = problem.New(problem.Unauthenticated, "session_ended", "your sessions have ended meanwhile")
	errImportHalted = problem.New(problem.Unavailable, "import_halted", "the replica that imported was stopped")
)

// A Refusal is a row of which no user was made.
type Refusal struct {
	Line     int    `json:"line"`
	Username string `json:"username,omitempty"`
	Code     string `json:"code"` // of the problem
	Why      string `json:"why"`
}

// Progress is how far an import is.
type Progress struct {
	ID        string    `json:"id"`
	Owner     string    `json:"owner"` // the user who imports
	StartedAt time.Time `json:"started_at"`
	UpdatedAt time.Time `json:"updated_at"`
	Total     int       `json:"total"` // rows
	Done      int       `json:"done"`  // Created, Present and Refused
	Created   int       `json:"created"`
	Present   int       `json:"present"` // there was a user of the name, who was not changed
	Refused   int       `json:"refused"`
	// Refusals are the first MaxRefusals of those that were refused, or somewhat fewer if their
	// texts are long.
	Refusals []Refusal `json:"refusals,omitempty"`
	// Finished says that the import has ended: with Done equal to Total, or before that, for the
	// reason in Stopped.
	Finished bool   `json:"finished"`
	Stopped  string `json:"stopped,omitempty"`
}

// Silent reports whether the import has not ended and yet wrote nothing for so long that its
// replica must have died. The same file can then be imported again: those who were created are
// Present.
func (p Progress) Silent(now time.Time) bool {
	return !p.Finished && now.Sub(p.UpdatedAt) > silentAfter
}

// An Import makes users of the rows of a file.
type Import struct {
	s        *Service
	actor    Actor
	rows     []userfile.Row
	epoch    int64         // SessionEpoch of the actor when it began
	pause    time.Duration // rowPause
	progress Progress
}

// BeginImport notes that an import begins, so that every replica can show its progress. It needs
// UsersWrite, and a fresh login, which then is good for the whole import. ErrImportRuns: another
// one of the actor's has not ended.
func (s *Service) BeginImport(ctx context.Context, actor Actor, rows []userfile.Row) (*Import, error) {
	i := &Import{s: s, actor: actor, rows: rows, pause: rowPause}
	if err := s.Authorize(ctx, actor, UsersWrite); err != nil {
		s.denied(ctx, actor, actionImport, "", err)
		return nil, err
	}
	if len(rows) == 0 {
		return nil, errNoRows
	}
	if len(rows) > userfile.MaxRows {
		return nil, problem.New(problem.TooLarge, "too_many_rows", "an import has at most %d users", userfile.MaxRows)
	}
	user, _, err := s.standing(ctx, s.Store, actor)
	if err != nil {
		return nil, fault(err)
	}
	i.epoch = user.SessionEpoch
	before, err := s.imports(ctx, actor.ID)
	if err != nil {
		return nil, err
	}
	for n, p := range before {
		if !p.Finished && !p.Silent(s.Now()) {
			return nil, ErrImportRuns
		}
		if n >= keepImports-1 {
			if err := s.State.Delete(ctx, importKey(actor.ID, p.ID)); err != nil {
				return nil, fault(err)
			}
		}
	}
	id, err := s.newID()
	if err != nil {
		return nil, err
	}
	i.progress = Progress{ID: id, Owner: actor.ID, StartedAt: s.Now(), Total: len(rows)}
	if err := i.note(ctx); err != nil {
		return nil, fault(err)
	}
	s.Audit.Record(ctx, i.event(audit.OK, "began: %d rows", len(rows)))
	return i, nil
}

// Progress returns how far the import is. It must not be called while Run runs; others read
// Service.ImportProgress.
func (i *Import) Progress() Progress { return i.progress }

// Run makes a user of each row, one after the other, as CreateUser does in the name of the actor,
// whose rights are read again for each. It changes no user who is there, so that the same file can
// be imported again. It ends early when ctx ends, when the actor may create users no more or their
// sessions end, and when the database cannot be asked for some time.
func (i *Import) Run(ctx context.Context) Progress {
	noted := i.progress.UpdatedAt
	var stopped error
	for _, row := range i.rows[i.progress.Done:] {
		if stopped = i.importRow(ctx, row); stopped != nil {
			break
		}
		i.progress.Done++
		if i.s.Now().Sub(noted) >= noteEvery {
			noted = i.s.Now()
			i.tryNote(ctx)
		}
	}
	i.progress.Finished = true
	outcome := audit.OK
	if stopped != nil {
		i.progress.Stopped = problem.From(stopped).Detail
		outcome = audit.Failed
	}
	end := context.WithoutCancel(ctx) // the replica that stops has time for this
	i.tryNote(end)
	i.s.Audit.Record(end, i.event(outcome, "%d of %d rows: %d created, %d there already, %d refused",
		i.progress.Done, i.progress.Total, i.progress.Created, i.progress.Present, i.progress.Refused))
	return i.progress
}

// importRow counts what became of a row, or returns why the import cannot go on.
func (i *Import) importRow(ctx context.Context, row userfile.Row) error {
	for attempt := 1; ; attempt++ {
		err := i.createUser(ctx, row)
		p := problem.From(err)
		switch {
		case err == nil:
			i.progress.Created++
			return nil
		case ctx.Err() != nil:
			return errImportHalted
		case errors.Is(err, errPresent) || errors.Is(err, errNameTaken):
			i.progress.Present++
			return nil
		case p.Kind == problem.Unauthenticated:
			return err
		case p.Kind == problem.Unavailable || p.Kind == problem.TooMany || errors.Is(err, ErrChangedMeanwhile):
			if attempt == rowAttempts {
				return err
			}
			select {
			case <-ctx.Done():
				return errImportHalted
			case <-time.After(i.pause):
			}
			continue
		case p.Kind == problem.Internal:
			i.s.Logger.ErrorContext(ctx, "a user could not be imported", "line", row.Line, "err", err)
		case errors.Is(err, ErrPermissionMissing):
			if err := i.s.Authorize(ctx, i.fresh(), UsersWrite); err != nil {
				return err
			}
		}
		i.refuse(row, p)
		return nil
	}
}

var errPresent = errors.New("directory: there is a user of this name")

// createUser makes the user of a row.
func (i *Import) createUser(ctx context.Context, row userfile.Row) error {
	if row.Wrong != nil {
		return row.Wrong
	}
	if err := i.alive(ctx); err != nil {
		return err
	}
	key, err := names.UsernameKey(row.Username)
	if err != nil {
		return err
	}
	if _, err := UserNamed(ctx, i.s.Store, key); !errors.Is(err, store.ErrNotFound) {
		return cmp.Or(fault(err), errPresent)
	}
	_, err = i.s.createUser(ctx, i.fresh(), NewUser{
		Username: row.Username, Email: row.Email, EmailVerified: row.EmailVerified, FirstName: row.FirstName, LastName: row.LastName,
		Disabled: row.Disabled, Groups: row.Groups,
	}, row.PasswordHash)
	return err
}

// fresh returns the actor, who logged in freshly when the import began: it is one thing that they
// do, however long it takes.
func (i *Import) fresh() Actor {
	actor := i.actor
	actor.AuthTime = i.s.Now()
	return actor
}

// alive returns an error if the actor may create users no more, or their sessions have ended
// since the import began.
func (i *Import) alive(ctx context.Context) error {
	user, rights, err := i.s.standing(ctx, i.s.Store, i.actor)
	switch {
	case err != nil:
		return fault(err)
	case !rights.Can(UsersWrite):
		return ErrPermissionMissing
	case user.SessionEpoch != i.epoch:
		return errImportEnded
	}
	return nil
}

// refuse notes that no user was made of a row.
func (i *Import) refuse(row userfile.Row, p *problem.Error) {
	i.progress.Refused++
	if len(i.progress.Refusals) < MaxRefusals {
		i.progress.Refusals = append(i.progress.Refusals, Refusal{
			Line: row.Line, Username: cut(userfile.HideHashes(row.Username), names.MaxUsername), Code: p.Code, Why: cut(userfile.HideHashes(p.Detail), 300),
		})
	}
}

// cut returns the first characters of a text.
func cut(text string, most int) string {
	for n := range text {
		if most--; most < 0 {
			return text[:n] + "…"
		}
	}
	return text
}

func (i *Import) event(outcome, format string, args ...any) store.AuditEvent {
	return store.AuditEvent{
		Actor: i.actor.ID, Action: actionImport, Target: i.progress.ID, Outcome: outcome, Address: i.actor.Address,
		Detail: fmt.Sprintf(format, args...),
	}
}

// tryNote is note for a record that the next one mends.
func (i *Import) tryNote(ctx context.Context) {
	if err := i.note(ctx); err != nil {
		i.s.Logger.WarnContext(ctx, "the progress of an import could not be written; the import goes on", "import", i.progress.ID, "err", err)
	}
}

// note writes the progress for all replicas.
func (i *Import) note(ctx context.Context) error {
	i.progress.UpdatedAt = i.s.Now()
	p := i.progress
	for {
		value, err := encodeProgress(p)
		if err != nil {
			return err
		}
		if len(value) <= state.MaxValue {
			_, err := i.s.State.Put(ctx, importKey(p.Owner, p.ID), value, keepProgress)
			return err
		}
		p.Refusals = p.Refusals[:len(p.Refusals)*3/4]
	}
}

func importKey(owner, id string) state.Key {
	return state.Key{Kind: kindImport, Owner: owner, ID: id}
}

// encodeProgress writes the progress for the shared state. It is packed: most refusals say the
// same.
func encodeProgress(p Progress) ([]byte, error) {
	var value bytes.Buffer
	w, err := flate.NewWriter(&value, flate.BestSpeed)
	if err == nil {
		err = json.NewEncoder(w).Encode(p)
	}
	if err == nil {
		err = w.Close()
	}
	return value.Bytes(), err
}

func decodeProgress(value []byte) (p Progress, err error) {
	const most = MaxRefusals * 4 << 10 // a refusal is smaller than 4 KiB
	return p, json.NewDecoder(io.LimitReader(flate.NewReader(bytes.NewReader(value)), most)).Decode(&p)
}

// ImportProgress returns how far an import is that the owner, named by id, has begun on any
// replica. It needs UsersRead, and only a superuser sees those of others.
func (s *Service) ImportProgress(ctx context.Context, actor Actor, owner, id string) (Progress, error) {
	if err := s.mayReadImports(ctx, actor, owner); err != nil {
		return Progress{}, err
	}
	if !isID(id) {
		return Progress{}, ErrImportNotFound
	}
	rec, err := s.State.Get(ctx, importKey(owner, id))
	if errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrUnreadable) {
		return Progress{}, ErrImportNotFound.Because(err)
	}
	if err != nil {
		return Progress{}, fault(err)
	}
	p, err := decodeProgress(rec.Value)
	if err != nil {
		return Progress{}, ErrImportNotFound.Because(err)
	}
	return p, nil
}

// Imports returns how far the imports of the last day are that the owner, named by id, has begun,
// newest first. It needs what ImportProgress needs.
func (s *Service) Imports(ctx context.Context, actor Actor, owner string) ([]Progress, error) {
	if err := s.mayReadImports(ctx, actor, owner); err != nil {
		return nil, err
	}
	return s.imports(ctx, owner)
}

func (s *Service) mayReadImports(ctx context.Context, actor Actor, owner string) error {
	if err := s.Authorize(ctx, actor, UsersRead); err != nil {
		return err
	}
	if owner == actor.ID {
		return nil
	}
	_, rights, err := s.standing(ctx, s.Store, actor)
	if err == nil && (!rights.Superuser() || !isID(owner)) {
		err = ErrImportNotFound // the same whether there is one
	}
	return fault(err)
}

func (s *Service) imports(ctx context.Context, owner string) ([]Progress, error) {
	records, err := s.State.List(ctx, kindImport, owner, "", 2*keepImports)
	if err != nil {
		return nil, fault(err)
	}
	var all []Progress
	for _, rec := range records {
		if p, err := decodeProgress(rec.Value); err == nil {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b Progress) int { return cmp.Compare(b.ID, a.ID) })
	return all, nil
}
