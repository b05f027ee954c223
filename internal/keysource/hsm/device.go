//go:build pkcs11 && cgo

package hsm

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/watchword-auth/watchword/internal/keysource"
)

// Supported reports whether this build can use an HSM.
const Supported = true

const (
	// patience is how long a signature waits for a session, or for the library to start.
	patience = 5 * time.Second
	// pause is the least time between two starts of the library: one may take long, and
	// disturbs other tokens of the same library.
	pause = time.Second
)

var (
	errBusy  = errors.New("every session with the HSM is in use, and none became free")
	errStale = errors.New("the PKCS #11 library was started anew")
	errGone  = errors.New("the key is not on the token any more")
)

// A device implements Token.
type device struct {
	cfg    Config
	module *module
	places chan struct{} // one for each session in use

	connecting chan struct{} // holds one value while a goroutine connects; guards the next four
	seen       int64         // generation of the module in which it was tried last
	restarted  time.Time
	refused    [sha256.Size]byte // hash of the PIN that the token has refused
	refusal    error             // nil: none

	mu     sync.Mutex
	conn   *connection // nil: none
	lost   error       // why there is none
	proven map[string]bool
	warned map[string]bool
	last   *key // for Ping
}

// A connection is a login, with sessions of it.
type connection struct {
	generation int64
	slot       uint
	name       string                    // of the token, for errors
	anchor     pkcs11.SessionHandle      // stays open: when the last session ends, so does the login
	idle       chan pkcs11.SessionHandle // open and not in use
}

func open(ctx context.Context, cfg Config) (Token, error) {
	if cfg.Sessions == 0 {
		cfg.Sessions = DefaultSessions
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	m, err := take(ctx, cfg.Library)
	if err != nil {
		return nil, err
	}
	d := &device{
		cfg: cfg, module: m, places: make(chan struct{}, cfg.Sessions),
		connecting: make(chan struct{}, 1), seen: -1,
		proven: map[string]bool{}, warned: map[string]bool{},
	}
	if _, err := d.connection(ctx); err != nil {
		return nil, errors.Join(err, m.release(ctx))
	}
	return d, nil
}

// Ping implements keysource.Keeper. It makes a signature, if there is a key: a library may not
// notice otherwise that its token is gone.
func (d *device) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	d.mu.Lock()
	k := d.last
	d.mu.Unlock()
	if k != nil {
		return k.prove(ctx)
	}
	return d.do(ctx, func(c *connection, _ pkcs11.SessionHandle) error {
		_, err := d.module.lib.GetTokenInfo(c.slot)
		return err
	})
}

// Close implements keysource.Keeper. What signs afterwards is ErrKeeperAway.
func (d *device) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case d.connecting <- struct{}{}: // for ever: nobody connects again
	case <-ctx.Done():
		return errBusy
	}
	d.mu.Lock()
	c := d.conn
	d.conn, d.lost = nil, errors.New("it was closed")
	d.mu.Unlock()
	if c != nil {
		_ = d.module.use(ctx, func() error {
			if c.generation != d.module.generation.Load() {
				return nil
			}
			for {
				select {
				case s := <-c.idle:
					_ = d.module.lib.CloseSession(s)
					continue
				default:
				}
				return d.module.lib.CloseSession(c.anchor)
			}
		})
	}
	return d.module.release(ctx)
}

// do calls f with a session. If the connection turns out to be lost, f is called once more
// with a session of a new one.
func (d *device) do(ctx context.Context, f func(*connection, pkcs11.SessionHandle) error) error {
	var err error
	for range 2 {
		var c *connection
		if c, err = d.connection(ctx); err != nil {
			break
		}
		if err = d.with(ctx, c, f); !isLost(err) {
			break
		}
		d.drop(c, err)
	}
	if err == nil || isFinal(err) || errors.Is(err, keysource.ErrKeeperAway) {
		return err
	}
	return keysource.ErrKeeperAway.After(pause).Because(err)
}

// with calls f with a session of a connection.
func (d *device) with(ctx context.Context, c *connection, f func(*connection, pkcs11.SessionHandle) error) error {
	select {
	case d.places <- struct{}{}:
	default: // only a caller that waits needs a timer, which costs a wake-up of the scheduler
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		select {
		case d.places <- struct{}{}:
		case <-ctx.Done():
			return errBusy
		}
	}
	defer func() { <-d.places }()
	return d.module.use(ctx, func() error {
		if c.generation != d.module.generation.Load() {
			return errStale
		}
		var s pkcs11.SessionHandle
		select {
		case s = <-c.idle:
		default:
			var err error
			if s, err = d.module.lib.OpenSession(c.slot, pkcs11.CKF_SERIAL_SESSION); err != nil {
				return err
			}
		}
		err := f(c, s)
		if err != nil { // what it has begun may not have ended
			_ = d.module.lib.CloseSession(s)
			return err
		}
		c.idle <- s // there are no more sessions than places
		return nil
	})
}

// isLost reports whether an error may mean that the connection is lost. Libraries differ in what
// they return for a token that is gone, so everything counts that is not about the call itself.
func isLost(err error) bool {
	var e pkcs11.Error
	return errors.Is(err, errStale) || errors.Is(err, errGone) ||
		errors.As(err, &e) && !isFinal(err) && e != pkcs11.CKR_SESSION_COUNT
}

// isFinal reports whether the same call will always fail.
func isFinal(err error) bool {
	var own *keyError
	return errors.As(err, &own) || is(err, pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID,
		pkcs11.CKR_KEY_TYPE_INCONSISTENT, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_KEY_SIZE_RANGE,
		pkcs11.CKR_DATA_INVALID, pkcs11.CKR_DATA_LEN_RANGE, pkcs11.CKR_ARGUMENTS_BAD, pkcs11.CKR_FUNCTION_NOT_SUPPORTED,
		pkcs11.CKR_TOKEN_WRITE_PROTECTED, pkcs11.CKR_TEMPLATE_INCONSISTENT, pkcs11.CKR_TEMPLATE_INCOMPLETE,
		pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID, pkcs11.CKR_DOMAIN_PARAMS_INVALID)
}

// drop makes the next caller connect anew.
func (d *device) drop(c *connection, why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == c {
		d.conn, d.lost = nil, why
	}
}

// current returns the connection, if it is not known to be lost.
func (d *device) current() (*connection, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil && d.conn.generation == d.module.generation.Load() {
		return d.conn, nil
	}
	return nil, d.lost
}

// connection returns the connection, or makes one.
func (d *device) connection(ctx context.Context) (*connection, error) {
	if c, _ := d.current(); c != nil {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case d.connecting <- struct{}{}:
		defer func() { <-d.connecting }()
	case <-ctx.Done():
		return nil, errBusy
	}
	c, lost := d.current() // another goroutine may have made it
	if c != nil {
		return c, nil
	}
	c, err := d.connect(ctx, lost)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		if lost == nil || err.Error() != lost.Error() {
			d.cfg.Logger.WarnContext(ctx, "the HSM cannot be used at the moment", "err", err)
		}
		d.conn, d.lost = nil, err
		return nil, err
	}
	if lost != nil {
		d.cfg.Logger.InfoContext(ctx, "the HSM can be used again")
	}
	d.conn, d.lost = c, nil
	return c, nil
}

// connect logs in. It starts the library anew if that was tried as it is.
func (d *device) connect(ctx context.Context, lost error) (c *connection, err error) {
	pin, err := d.cfg.PIN()
	if err != nil {
		return nil, fmt.Errorf("the PIN of the HSM cannot be read: %w", err)
	}
	if pin == "" {
		return nil, errors.New("the token needs a PIN: set PKCS11_PIN or PKCS11_PIN_FILE")
	}
	hash := sha256.Sum256([]byte(pin))
	if d.refusal != nil && hash == d.refused {
		return nil, d.refusal
	}
	if d.seen == d.module.generation.Load() {
		now := d.cfg.Now()
		if since := now.Sub(d.restarted); since >= 0 && since < pause {
			return nil, lost
		}
		d.restarted = now
		if err := d.module.restart(ctx, d.seen); err != nil {
			return nil, fmt.Errorf("the PKCS #11 library %s does not start: %w", d.cfg.Library, err)
		}
	}
	err = d.module.use(ctx, func() error {
		d.seen = d.module.generation.Load()
		slot, info, err := d.find()
		if err != nil {
			return err
		}
		c = &connection{generation: d.seen, slot: slot, name: info.Label, idle: make(chan pkcs11.SessionHandle, cap(d.places))}
		if c.anchor, err = d.module.lib.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION); err != nil {
			return fmt.Errorf("the token %q gives no session: %w", info.Label, err)
		}
		if err = d.login(c, info, pin); err != nil {
			_ = d.module.lib.CloseSession(c.anchor)
		}
		return err
	})
	if d.refusal != nil {
		d.refused = hash
	}
	return c, err
}

// login logs in with a PIN that this token has not refused before. It notes the refusal.
func (d *device) login(c *connection, info pkcs11.TokenInfo, pin string) error {
	d.refusal = nil
	switch {
	case info.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return fmt.Errorf("the PIN of the token %q is locked: have its security officer set a new one", c.name)
	case info.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return fmt.Errorf("one more wrong PIN would lock the token %q, so none is tried: log in once with another program, such as \"pkcs11-tool --login\", and start again", c.name)
	}
	err := d.module.lib.Login(c.anchor, pkcs11.CKU_USER, pin)
	switch {
	case err == nil, is(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN):
		return nil
	case is(err, pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE):
		d.refusal = fmt.Errorf("the token %q refuses the PIN, which is not tried again: correct PKCS11_PIN or the file of PKCS11_PIN_FILE", c.name)
	case is(err, pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_USER_PIN_NOT_INITIALIZED):
		d.refusal = fmt.Errorf("the PIN of the token %q is locked, expired or not set: have its security officer set a new one", c.name)
	default:
		return fmt.Errorf("the login to the token %q failed: %w", c.name, err)
	}
	return d.refusal
}

// find returns the one token that the Config names.
func (d *device) find() (slot uint, info pkcs11.TokenInfo, err error) {
	slots, err := d.module.lib.GetSlotList(true)
	if err != nil {
		return 0, info, fmt.Errorf("the PKCS #11 library does not list its tokens: %w", err)
	}
	found := 0
	var others []string
	for _, s := range slots {
		i, err := d.module.lib.GetTokenInfo(s)
		if err != nil || i.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			continue // it went away meanwhile, or nobody has made it a token yet
		}
		if d.cfg.Token != "" && i.Label != d.cfg.Token || d.cfg.Serial != "" && i.SerialNumber != d.cfg.Serial {
			others = append(others, fmt.Sprintf("%q (serial %s)", i.Label, i.SerialNumber))
			continue
		}
		found++
		slot, info = s, i
	}
	switch {
	case found == 1:
		return slot, info, nil
	case found > 1:
		return 0, info, fmt.Errorf("the HSM has %d tokens %s: name one by tokens.pkcs11.serial", found, d.wanted())
	case len(others) == 0:
		return 0, info, fmt.Errorf("the HSM has no token %s, and no other: is it plugged in, and is the library configured for it?", d.wanted())
	}
	return 0, info, fmt.Errorf("the HSM has no token %s, only %s", d.wanted(), list(others))
}

// wanted describes the token that the Config names.
func (d *device) wanted() string {
	switch {
	case d.cfg.Token == "" && d.cfg.Serial == "":
		return "of any name"
	case d.cfg.Token == "":
		return fmt.Sprintf("with the serial number %s", d.cfg.Serial)
	case d.cfg.Serial == "":
		return fmt.Sprintf("with the label %q", d.cfg.Token)
	}
	return fmt.Sprintf("with the label %q and the serial number %s", d.cfg.Token, d.cfg.Serial)
}
