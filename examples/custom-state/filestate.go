package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/watchword-auth/watchword/state"
)

// A FileState keeps state in the memory of one process, and writes each change to the end of
// a file before the change is answered. The file grows until it is opened again. It is for a
// single replica: a second process that opens the file is refused.
type FileState struct {
	now  func() time.Time
	lock *os.File // a file of its own, since the other one is replaced

	mu      sync.Mutex // guards what follows
	file    *os.File
	end     int64 // of the changes that were written whole
	records map[owned]map[string]state.Record
	rates   map[state.Key]int64 // when a bucket is empty again (state.Rate.Decide)
}

// owned are the records of one kind and owner, which List returns.
type owned struct{ kind, owner string }

// A change is one line of the file.
type change struct {
	Record *state.Record `json:"record,omitempty"` // written
	Gone   []state.Key   `json:"gone,omitempty"`   // deleted
	Rate   *state.Key    `json:"rate,omitempty"`   // counted, or reset
	Empty  int64         `json:"empty,omitempty"`
}

var _ state.Store = (*FileState)(nil)

// OpenFileState reads the file, if there is one, and replaces it by one without the records
// that have expired.
func OpenFileState(path string, now func() time.Time) (*FileState, error) {
	s := &FileState{now: now, records: map[owned]map[string]state.Record{}, rates: map[state.Key]int64{}}
	var err error
	if s.lock, err = lockFile(path + ".lock"); err != nil {
		return nil, err
	}
	if err = s.read(path); err == nil || errors.Is(err, os.ErrNotExist) {
		err = s.rewrite(path)
	}
	if err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	return s, nil
}

// lockFile keeps other processes out until the file is closed, or this process ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is held by another process: %w", path, err), f.Close())
	}
	return f, nil
}

// read repeats all changes of the file. A last line without an end is a change that was not
// answered.
func (s *FileState) read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for lines := bufio.NewReader(f); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var c change
		if err := json.Unmarshal(line, &c); err != nil {
			return fmt.Errorf("%s is damaged: %w", path, err)
		}
		s.apply(c)
	}
}

// rewrite replaces the file by one that holds the live records alone.
func (s *FileState) rewrite(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	out := json.NewEncoder(w)
	for _, records := range s.records {
		for _, r := range records {
			if s.now().Before(r.Expires) {
				err = errors.Join(err, out.Encode(change{Record: &r}))
			}
		}
	}
	for key, empty := range s.rates {
		if s.now().UnixMicro() < empty {
			err = errors.Join(err, out.Encode(change{Rate: &key, Empty: empty}))
		}
	}
	if err = errors.Join(err, w.Flush(), f.Sync()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	if err := syncDirectory(filepath.Dir(path)); err != nil { // so that the new name outlives a power failure
		return errors.Join(err, f.Close())
	}
	s.file = f
	s.end, err = f.Seek(0, io.SeekCurrent)
	return err
}

// syncDirectory makes a new name in a directory outlive a power failure.
func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// do writes a change to the file, and then makes it in memory. With an error nothing has
// changed: a part of the line that may be in the file is overwritten by the next one.
func (s *FileState) do(c change) error {
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if _, err = s.file.WriteAt(line, s.end); err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		return state.ErrUnavailable.Because(errors.Join(err, s.file.Truncate(s.end)))
	}
	s.end += int64(len(line))
	s.apply(c)
	return nil
}

func (s *FileState) apply(c change) {
	if r := c.Record; r != nil {
		o := owned{r.Key.Kind, r.Key.Owner}
		if s.records[o] == nil {
			s.records[o] = map[string]state.Record{}
		}
		s.records[o][r.Key.ID] = *r
	}
	for _, key := range c.Gone {
		o := owned{key.Kind, key.Owner}
		delete(s.records[o], key.ID)
		if len(s.records[o]) == 0 {
			delete(s.records, o)
		}
	}
	if c.Rate != nil {
		s.rates[*c.Rate] = c.Empty
	}
}

// begin makes the checks that all methods share, and locks the store unless it returns an
// error.
func (s *FileState) begin(ctx context.Context, invalid error) error {
	if invalid != nil {
		return invalid
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	return nil
}

// live returns a copy of a record that has not expired.
func (s *FileState) live(key state.Key) (state.Record, error) {
	r, found := s.records[owned{key.Kind, key.Owner}][key.ID]
	if !found || !s.now().Before(r.Expires) {
		return state.Record{}, state.ErrNotFound
	}
	r.Value = bytes.Clone(r.Value)
	return r, nil
}

func (s *FileState) write(key state.Key, value []byte, ttl time.Duration) (int64, error) {
	r := state.Record{
		Key: key, Value: append([]byte{}, value...),
		Expires: s.now().Add(ttl).UTC().Truncate(time.Millisecond), Version: state.NewVersion(),
	}
	return r.Version, s.do(change{Record: &r})
}

// Get implements state.Store.
func (s *FileState) Get(ctx context.Context, key state.Key) (state.Record, error) {
	if err := s.begin(ctx, key.Check()); err != nil {
		return state.Record{}, err
	}
	defer s.mu.Unlock()
	return s.live(key)
}

// Put implements state.Store.
func (s *FileState) Put(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	if err := s.begin(ctx, state.CheckWrite(key, value, ttl)); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	return s.write(key, value, ttl)
}

// Create implements state.Store.
func (s *FileState) Create(ctx context.Context, key state.Key, value []byte, ttl time.Duration) (int64, error) {
	if err := s.begin(ctx, state.CheckWrite(key, value, ttl)); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	if _, err := s.live(key); err == nil {
		return 0, state.ErrExists
	}
	return s.write(key, value, ttl)
}

// Swap implements state.Store.
func (s *FileState) Swap(ctx context.Context, key state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	if err := s.begin(ctx, state.CheckWrite(key, value, ttl)); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	if old, err := s.live(key); err != nil || old.Version != version {
		return 0, state.ErrChanged
	}
	return s.write(key, value, ttl)
}

// Take implements state.Store.
func (s *FileState) Take(ctx context.Context, key state.Key) (state.Record, error) {
	if err := s.begin(ctx, key.Check()); err != nil {
		return state.Record{}, err
	}
	defer s.mu.Unlock()
	r, err := s.live(key)
	if err == nil {
		err = s.do(change{Gone: []state.Key{key}})
	}
	if err != nil {
		return state.Record{}, err
	}
	return r, nil
}

// Delete implements state.Store.
func (s *FileState) Delete(ctx context.Context, key state.Key) error {
	if err := s.begin(ctx, key.Check()); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if _, err := s.live(key); err != nil {
		return nil
	}
	return s.do(change{Gone: []state.Key{key}})
}

// List implements state.Store.
func (s *FileState) List(ctx context.Context, kind, owner, after string, limit int) ([]state.Record, error) {
	if err := s.begin(ctx, state.CheckPage(kind, owner, after, limit)); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var page []state.Record
	for _, id := range slices.Sorted(maps.Keys(s.records[owned{kind, owner}])) {
		if id <= after || len(page) == limit {
			continue
		}
		if r, err := s.live(state.Key{Kind: kind, Owner: owner, ID: id}); err == nil {
			page = append(page, r)
		}
	}
	return page, nil
}

// DeleteOwned implements state.Store.
func (s *FileState) DeleteOwned(ctx context.Context, kind, owner string) (int, error) {
	if err := s.begin(ctx, state.CheckOwned(kind, owner)); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	var gone []state.Key
	for _, r := range s.records[owned{kind, owner}] {
		if s.now().Before(r.Expires) {
			gone = append(gone, r.Key)
		}
	}
	if len(gone) == 0 {
		return 0, nil
	}
	return len(gone), s.do(change{Gone: gone})
}

// Limit implements state.Store. An event that is refused changes nothing, unless the bucket was
// more than full.
func (s *FileState) Limit(ctx context.Context, key state.Key, rate state.Rate) (state.Decision, error) {
	if err := s.begin(ctx, errors.Join(key.Check(), rate.Check())); err != nil {
		return state.Decision{}, err
	}
	defer s.mu.Unlock()
	empty, d := rate.Decide(s.rates[key], s.now().UnixMicro())
	if empty != s.rates[key] {
		if err := s.do(change{Rate: &key, Empty: empty}); err != nil {
			return state.Decision{}, err
		}
	}
	return d, nil
}

// Reset implements state.Store.
func (s *FileState) Reset(ctx context.Context, key state.Key) error {
	if err := s.begin(ctx, key.Check()); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if _, counted := s.rates[key]; !counted {
		return nil
	}
	return s.do(change{Rate: &key}) // empty since 1970
}

// Sweep implements state.Store. Expired records stay in the file until it is opened again.
func (s *FileState) Sweep(ctx context.Context, limit int) (int, error) {
	if err := s.begin(ctx, nil); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	var gone []state.Key
	for _, records := range s.records {
		for _, r := range records {
			if len(gone) < limit && !s.now().Before(r.Expires) {
				gone = append(gone, r.Key)
			}
		}
	}
	s.apply(change{Gone: gone})
	n := len(gone)
	for key, empty := range s.rates {
		if n < limit && empty <= s.now().UnixMicro() {
			delete(s.rates, key)
			n++
		}
	}
	return n, nil
}

// Ping implements state.Store.
func (s *FileState) Ping(ctx context.Context) error { return ctx.Err() }

// Close implements state.Store.
func (s *FileState) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.file.Close(), s.lock.Close())
}
