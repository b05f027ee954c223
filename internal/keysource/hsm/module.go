//go:build pkcs11 && cgo

package hsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/miekg/pkcs11"
	"golang.org/x/sync/semaphore"
)

// cryptoki is what is used of a PKCS #11 library. A *pkcs11.Ctx implements it.
type cryptoki interface {
	Initialize(...pkcs11.InitializeOption) error
	Finalize() error
	GetSlotList(tokenPresent bool) ([]uint, error)
	GetTokenInfo(slot uint) (pkcs11.TokenInfo, error)
	GetMechanismInfo(slot uint, m []*pkcs11.Mechanism) (pkcs11.MechanismInfo, error)
	OpenSession(slot, flags uint) (pkcs11.SessionHandle, error)
	CloseSession(pkcs11.SessionHandle) error
	Login(s pkcs11.SessionHandle, userType uint, pin string) error
	FindObjectsInit(s pkcs11.SessionHandle, template []*pkcs11.Attribute) error
	FindObjects(s pkcs11.SessionHandle, limit int) ([]pkcs11.ObjectHandle, bool, error)
	FindObjectsFinal(pkcs11.SessionHandle) error
	GetAttributeValue(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, a []*pkcs11.Attribute) ([]*pkcs11.Attribute, error)
	SignInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, key pkcs11.ObjectHandle) error
	Sign(s pkcs11.SessionHandle, message []byte) ([]byte, error)
	GenerateKeyPair(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, public, private []*pkcs11.Attribute) (pub, priv pkcs11.ObjectHandle, err error)
	DestroyObject(pkcs11.SessionHandle, pkcs11.ObjectHandle) error
}

// load loads the library of a path, or returns nil. Tests replace it.
var load = func(path string) cryptoki {
	if lib := pkcs11.New(path); lib != nil {
		return lib
	}
	return nil
}

// A module is a loaded library. PKCS #11 knows one application in a process: a library that is
// started anew is so for all its Tokens.
type module struct {
	lib        cryptoki
	generation atomic.Int64        // how often the library was started or stopped; changes under all of inUse
	inUse      *semaphore.Weighted // one for each call, all of it to start or stop the library
	users      int                 // guarded by modules.mu
}

// allOf is more than there are calls at once.
const allOf = 1 << 30

// modules are the libraries that this process has loaded. None is unloaded: what a library
// has started, such as threads, may outlive its end.
var modules = struct {
	mu   sync.Mutex
	path map[string]*module
}{path: map[string]*module{}}

// take returns the module of a library, started.
func take(ctx context.Context, path string) (*module, error) {
	modules.mu.Lock()
	defer modules.mu.Unlock()
	real := path
	if filepath.IsAbs(path) { // another one is looked for where the system has its libraries
		var err error
		if real, err = filepath.EvalSymlinks(path); err != nil {
			if errors.Is(err, os.ErrNotExist) {
				return nil, fmt.Errorf("there is no PKCS #11 library %s: set CRYPTOKI_LIB to the one of the HSM's maker", path)
			}
			return nil, fmt.Errorf("the PKCS #11 library %s cannot be read: %w", path, err)
		}
	}
	m := modules.path[real]
	if m == nil {
		lib := load(real)
		if lib == nil {
			return nil, fmt.Errorf("%s cannot be loaded: CRYPTOKI_LIB must be a PKCS #11 library for this platform, and what it links to must be installed", path)
		}
		m = &module{lib: lib, inUse: semaphore.NewWeighted(allOf)}
		modules.path[real] = m
	}
	if m.users == 0 {
		if err := m.restart(ctx, m.generation.Load()); err != nil {
			return nil, fmt.Errorf("the PKCS #11 library %s does not start: %w", path, err)
		}
	}
	m.users++
	return m, nil
}

// release stops the library when its last user has gone.
func (m *module) release(ctx context.Context) error {
	modules.mu.Lock()
	defer modules.mu.Unlock()
	if m.users--; m.users > 0 {
		return nil
	}
	if err := m.inUse.Acquire(ctx, allOf); err != nil {
		return errors.New("the HSM does not answer")
	}
	defer m.inUse.Release(allOf)
	m.generation.Add(1)
	return m.lib.Finalize()
}

// restart stops and starts the library, unless somebody else has since a generation was seen. It
// is the only way by which every library notices that a token has come back.
func (m *module) restart(ctx context.Context, seen int64) error {
	if err := m.inUse.Acquire(ctx, allOf); err != nil {
		return errors.New("the HSM does not answer")
	}
	defer m.inUse.Release(allOf)
	if m.generation.Load() != seen {
		return nil
	}
	m.generation.Add(1)
	_ = m.lib.Finalize() // it may not run
	if err := m.lib.Initialize(); err != nil && !is(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		return err
	}
	return nil
}

// use calls f while the library is not started anew.
func (m *module) use(ctx context.Context, f func() error) error {
	if !m.inUse.TryAcquire(1) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if err := m.inUse.Acquire(ctx, 1); err != nil {
			return errBusy
		}
	}
	defer m.inUse.Release(1)
	return f()
}

// is reports whether err is one of the return values of PKCS #11.
func is(err error, values ...pkcs11.Error) bool {
	var e pkcs11.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, v := range values {
		if e == v {
			return true
		}
	}
	return false
}
