package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
)

// ask puts a question by a function that returns the id of the replica that answered, and its
// answer.
func ask(q Question, examine func(question []byte) (instance string, answer []byte, err error)) (Facts, error) {
	question, err := json.Marshal(q)
	if err != nil {
		return Facts{}, err
	}
	instance, answer, err := examine(question)
	if err != nil {
		return Facts{}, err
	}
	var facts Facts
	if err := json.Unmarshal(answer, &facts); err != nil {
		return Facts{}, errors.New("its answer cannot be read: it may run another version of Watchword")
	}
	if facts.Instance != instance {
		return Facts{}, fmt.Errorf("the replica %.80q answers in the name of %.80q", instance, facts.Instance)
	}
	return facts, nil
}

// askAll asks replicas side by side what they are, and returns them in the order of their
// places.
func askAll(ctx context.Context, by *cluster.Asker, places []discovery.Peer) []Replica {
	replicas := make([]Replica, len(places))
	var all sync.WaitGroup
	for i, at := range places {
		all.Go(func() {
			replicas[i].URL = at.URL
			replicas[i].Facts, replicas[i].Err = ask(Question{}, func(question []byte) (string, []byte, error) {
				return by.Examine(ctx, at, question)
			})
		})
	}
	all.Wait()
	return replicas
}

// A Self is a replica that answers questions about itself.
type Self struct {
	Instance string
	Process  string // made anew at each start
	Version  string
	// Settings returns those in effect, as Facts has them.
	Settings     func() map[string]string
	DB           *sqldb.DB // nil: the program brings its own store
	State        state.Store
	Installation func(ctx context.Context) (string, error)
	Ready        func() error
	Signer       func() (kid string, err error) // of the key that signs now
	// Issue makes a token that belongs to no user and that nothing accepts but Accepts, and Revoke
	// revokes one by its id.
	Issue   func() (token, id string, err error)
	Revoke  func(ctx context.Context, id string) error
	Accepts func(ctx context.Context, token string) (bool, error)
	Now     func() time.Time
}

// Answer answers a question that came by a request, as JSON. The error is for whoever asks.
func (s *Self) Answer(ctx context.Context, question []byte, r Request) ([]byte, error) {
	var q Question
	if err := json.Unmarshal(question, &q); err != nil {
		return nil, errQuestion.Because(err)
	}
	for _, name := range []string{q.Read, q.Write, q.Count, q.Revoke} {
		if !validName(name) {
			return nil, errQuestion
		}
	}
	return json.Marshal(s.Facts(ctx, q, r))
}

var errQuestion = problem.New(problem.Malformed, "question_invalid", "the question cannot be read: the doctor may be of another version of Watchword")

// validName reports whether a name in a question may be the id of a record. It is chosen at random
// and no longer than it needs to be.
func validName(name string) bool {
	return len(name) <= 64 && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// Facts says what this replica is, and does what the question asks for.
func (s *Self) Facts(ctx context.Context, q Question, r Request) Facts {
	f := Facts{Instance: s.Instance, Process: s.Process, Version: s.Version, Time: s.Now(), Settings: s.Settings(), Request: r}
	f.Signs, _ = s.Signer() // why there is none, Ready says
	if err := s.Ready(); err != nil {
		f.Ready = problem.From(err).Detail
	}
	var failed []error
	note := func(doing string, err error) {
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", doing, err))
		}
	}
	var err error
	f.Installation, err = s.Installation(ctx)
	note("read the installation's id", err)
	if s.DB != nil {
		f.Schema, err = s.DB.SchemaVersion(ctx)
		note("read the version of the schema", err)
	}
	if q.Write != "" {
		_, err := s.State.Put(ctx, RecordKey(q.Write), []byte(s.Instance), recordLife)
		note("write to the shared state", err)
	}
	if q.Read != "" {
		_, err := s.State.Get(ctx, RecordKey(q.Read))
		f.Found = err == nil
		if !errors.Is(err, state.ErrNotFound) {
			note("read from the shared state", err)
		}
	}
	if q.Count != "" {
		d, err := s.State.Limit(ctx, RecordKey(q.Count), CountRate)
		f.Counted = int64(CountRate.Burst - d.Remaining)
		if d.Allowed {
			f.Counted--
		}
		note("count in the shared state", err)
	}
	if q.Issue {
		f.Token, f.TokenID, err = s.Issue()
		note("issue a token", err)
	}
	if q.Revoke != "" {
		note("revoke a token", s.Revoke(ctx, q.Revoke))
	}
	if len(failed) > 0 {
		f.Problem = errors.Join(failed...).Error()
	}
	return f
}

// recordLife is how long a record lives that is written to find out something.
const recordLife = time.Minute

// CountRate is by what the counter of Question.Count counts: so slowly that nothing is given back
// while a doctor looks, and forgotten a minute after.
var CountRate = state.Rate{Burst: 1024, Period: 1024 * recordLife}

// RecordKey is the key of a record, or of a counter, that a question names.
func RecordKey(name string) state.Key { return state.Key{Kind: "doctor", Owner: name, ID: name} }
