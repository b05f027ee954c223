package password

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"

	"github.com/watchword-auth/watchword/internal/config"
)

// maxEncoded bounds a PHC string from the database or the init file, in bytes.
const maxEncoded = 256

// cost is what one hash costs.
type cost struct{ memory, iterations, parallelism int }

// compute runs the hash function.
func (c cost) compute(prepared string, salt []byte, size int) []byte {
	return argon2.IDKey([]byte(prepared), salt, uint32(c.iterations), uint32(c.memory), uint8(c.parallelism), uint32(size))
}

func (c cost) kib() int  { return c.memory }
func (c cost) work() int { return c.memory * c.iterations }

// beyond returns a cost that takes as much time as c takes longer than the work. It needs no
// more memory than c. It returns false if c does not take longer, or by too little for a
// hash.
func (c cost) beyond(work int) (rest cost, more bool) {
	rest = c
	rest.memory = (c.work() - work) / c.iterations
	return rest, rest.memory >= 8*rest.parallelism
}

func (c cost) check() error {
	switch {
	case c.iterations < 1 || c.iterations > config.MaxHashIterations:
		return fmt.Errorf("iterations must be 1 to %d", config.MaxHashIterations)
	case c.parallelism < 1 || c.parallelism > config.MaxHashParallelism:
		return fmt.Errorf("parallelism must be 1 to %d", config.MaxHashParallelism)
	case c.memory < 8*c.parallelism || c.memory > int(config.MaxHashMemory): // RFC 9106 §3.1
		return fmt.Errorf("memory must be %d to %d KiB", 8*c.parallelism, config.MaxHashMemory)
	case c.work() > int(config.MaxHashWork):
		return fmt.Errorf("memory × iterations must be at most %d KiB", config.MaxHashWork)
	}
	return nil
}

// encoded is a PHC string taken apart.
type encoded struct {
	cost
	salt, hash []byte
}

var errPHC = errors.New("not an Argon2id hash in PHC form ($argon2id$v=19$m=…,t=…,p=…$salt$hash)")

// CheckHash returns an error for a text that is no hash as it is stored: an Argon2id hash, or one of
// another system (Foreign). A hash that costs more than is allowed is none either.
func CheckHash(text string) error {
	_, err := parse(text)
	return err
}

// The least that a hash from elsewhere may cost: by OWASP, Argon2id is as strong as it should be
// with 7 MiB and 5 iterations, or more memory and fewer of them.
const (
	minForeignMemory = 7 << 10              // KiB
	minForeignWork   = minForeignMemory * 5 // memory × iterations
)

// parsePHC reads a hash, and refuses whatever this package would not have written, but
// for costs and lengths within bounds.
func parsePHC(s string) (encoded, error) {
	var e encoded
	if len(s) > maxEncoded {
		return e, errPHC
	}
	part := strings.Split(s, "$")
	if len(part) != 6 || part[0] != "" || part[1] != "argon2id" || part[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return e, errPHC
	}
	if n, err := fmt.Sscanf(part[3], "m=%d,t=%d,p=%d", &e.memory, &e.iterations, &e.parallelism); n != 3 || err != nil {
		return e, errPHC
	}
	var errSalt, errHash error
	e.salt, errSalt = base64.RawStdEncoding.Strict().DecodeString(part[4])
	e.hash, errHash = base64.RawStdEncoding.Strict().DecodeString(part[5])
	if errSalt != nil || errHash != nil || len(e.salt) < 8 || len(e.salt) > 64 || len(e.hash) < 16 || len(e.hash) > 64 || e.String() != s {
		return e, errPHC
	}
	if err := e.check(); err != nil {
		return e, fmt.Errorf("password hash: %w", err)
	}
	return e, nil
}

func (e encoded) matches(prepared string) bool {
	return subtle.ConstantTimeCompare(e.compute(prepared, e.salt, len(e.hash)), e.hash) == 1
}

func (e encoded) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, e.memory, e.iterations, e.parallelism,
		b64.EncodeToString(e.salt), b64.EncodeToString(e.hash))
}
