package memstate

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/state"
)

// Store implements state.Store without its durability: it lasts as long as the process.
type Store struct {
	now func() time.Time

	mu      sync.Mutex // guards the fields below
	records map[owned]*list
	kept    int                 // how many records
	rates   map[state.Key]int64 // the arrival of state.Rate.Decide
}

// owned is the part of a key by which records are listed; the rest is the ID.
type owned struct{ kind, owner string }

// A list is an owner's records of one kind.
type list struct {
	byID map[string]state.Record
	ids  []string // the keys of byID, in order
}

var _ state.Store = (*Store)(nil)

// New returns an empty store. now is its clock.
func New(now func() time.Time) *Store {
	return &Store{
		now:     now,
		records: make(map[owned]*list),
		rates:   make(map[state.Key]int64),
	}
}

// Get implements state.Store.
func (s *Store) Get(ctx context.Context, key state.Key) (state.Record, error) {
	if err := check(ctx, key.Check()); err != nil {
		return state.Record{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live(key)
}

// Put implements state.Store.
func (s *Store) Put(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	if err := check(ctx, state.CheckWrite(key, value, ttl)); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write(key, value, ttl), nil
}

// Create implements state.Store.
func (s *Store) Create(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	if err := check(ctx, state.CheckWrite(key, value, ttl)); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.live(key); err == nil {
		return 0, state.ErrExists
	}
	return s.write(key, value, ttl), nil
}

// Swap implements state.Store.
func (s *Store) Swap(ctx context.Context, key state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	if err := check(ctx, state.CheckWrite(key, value, ttl)); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, err := s.live(key); err != nil || old.Version != version {
		return 0, state.ErrChanged
	}
	return s.write(key, value, ttl), nil
}

// Take implements state.Store.
func (s *Store) Take(ctx context.Context, key state.Key) (state.Record, error) {
	if err := check(ctx, key.Check()); err != nil {
		return state.Record{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.live(key)
	if err != nil {
		return state.Record{}, err
	}
	s.remove(key)
	return r, nil
}

// Delete implements state.Store.
func (s *Store) Delete(ctx context.Context, key state.Key) error {
	if err := check(ctx, key.Check()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(key)
	return nil
}

// List implements state.Store.
func (s *Store) List(ctx context.Context, kind, owner, after string, limit int) ([]state.Record, error) {
	if err := check(ctx, state.CheckPage(kind, owner, after, limit)); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.records[owned{kind, owner}]
	if of == nil {
		return nil, nil
	}
	at, found := slices.BinarySearch(of.ids, after)
	if found {
		at++
	}
	var page []state.Record
	for _, id := range of.ids[at:] {
		if len(page) == limit {
			break
		}
		if r, err := s.live(state.Key{Kind: kind, Owner: owner, ID: id}); err == nil {
			page = append(page, r)
		}
	}
	return page, nil
}

// DeleteOwned implements state.Store.
func (s *Store) DeleteOwned(ctx context.Context, kind, owner string) (int, error) {
	if err := check(ctx, state.CheckOwned(kind, owner)); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	of, now, n := s.records[owned{kind, owner}], s.now(), 0
	if of == nil {
		return 0, nil
	}
	for _, r := range of.byID {
		if now.Before(r.Expires) {
			n++
		}
	}
	delete(s.records, owned{kind, owner})
	s.kept -= len(of.ids)
	return n, nil
}

// Limit implements state.Store.
func (s *Store) Limit(ctx context.Context, key state.Key, rate state.Rate) (state.Decision, error) {
	if err := check(ctx, key.Check()); err != nil {
		return state.Decision{}, err
	}
	if err := rate.Check(); err != nil {
		return state.Decision{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	arrival, d := rate.Decide(s.rates[key], s.now().UnixMicro())
	s.rates[key] = arrival
	return d, nil
}

// Reset implements state.Store.
func (s *Store) Reset(ctx context.Context, key state.Key) error {
	if err := check(ctx, key.Check()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.rates, key)
	return nil
}

// Len returns how many records and buckets are kept. Those that have expired count until they
// are swept.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept + len(s.rates)
}

// Sweep implements state.Store.
func (s *Store) Sweep(ctx context.Context, limit int) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, n := s.now(), 0
	for _, of := range s.records {
		for _, r := range of.byID {
			if n < limit && !now.Before(r.Expires) {
				s.remove(r.Key)
				n++
			}
		}
	}
	for key, arrival := range s.rates {
		if n < limit && arrival <= now.UnixMicro() {
			delete(s.rates, key)
			n++
		}
	}
	return n, nil
}

// Ping implements state.Store.
func (s *Store) Ping(ctx context.Context) error { return ctx.Err() }

// Close implements state.Store. The records stay: other users of the store may still be
// at work.
func (s *Store) Close() error { return nil }

// live returns a copy of the record under key if it has not expired.
func (s *Store) live(key state.Key) (state.Record, error) {
	of := s.records[owned{key.Kind, key.Owner}]
	if of == nil {
		return state.Record{}, state.ErrNotFound
	}
	r, ok := of.byID[key.ID]
	if !ok || !s.now().Before(r.Expires) {
		return state.Record{}, state.ErrNotFound
	}
	r.Value = bytes.Clone(r.Value)
	return r, nil
}

func (s *Store) write(key state.Key, value []byte, ttl time.Duration) int64 {
	o := owned{key.Kind, key.Owner}
	of := s.records[o]
	if of == nil {
		of = &list{byID: make(map[string]state.Record)}
		s.records[o] = of
	}
	if at, found := slices.BinarySearch(of.ids, key.ID); !found {
		of.ids = slices.Insert(of.ids, at, key.ID)
		s.kept++
	}
	r := state.Record{
		Key:     key,
		Value:   append([]byte{}, value...),
		Expires: s.now().Add(ttl).UTC().Truncate(time.Millisecond),
		Version: state.NewVersion(),
	}
	of.byID[key.ID] = r
	return r.Version
}

func (s *Store) remove(key state.Key) {
	o := owned{key.Kind, key.Owner}
	of := s.records[o]
	if of == nil {
		return
	}
	delete(of.byID, key.ID)
	if at, found := slices.BinarySearch(of.ids, key.ID); found {
		of.ids = slices.Delete(of.ids, at, at+1)
		s.kept--
	}
	if len(of.ids) == 0 {
		delete(s.records, o)
	}
}

// check returns invalid, or the error of a context that has ended.
func check(ctx context.Context, invalid error) error {
	if invalid != nil {
		return invalid
	}
	return ctx.Err()
}
