package password

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/watchword-auth/watchword/internal/problem"
)

// What a hash of another system may cost. The bounds above hold at every verification, so that a
// hash that somebody planted does not take a replica down; those below hold where hashes are
// imported. A bcrypt cost of 10 and 10,000 iterations of PBKDF2 are the least that OWASP and NIST
// SP 800-63B (§5.1.1.2) name; the hash is replaced at the first login.
const (
	minBcryptCost       = 10
	maxBcryptCost       = 14 // about a second
	minPBKDF2Iterations = 10_000
	maxPBKDF2Iterations = 2_000_000 // about a second
)

// What hashes cost in the unit of Argon2id, memory in KiB × iterations, as measured on one
// processor: 19 MiB × 2 iterations take 28 ms, bcrypt of cost 10 takes 87 ms, and 100,000
// iterations of PBKDF2 take 29 ms with SHA-256 and 75 ms with SHA-512. They are only for fairness
// and for the time of answers, so it is enough if they are about right.
const (
	bcryptWork = 118 // of each of the 2^cost rounds
	sha256Work = 0.4 // of each iteration
	sha512Work = 1.0
)

// A stored hash can be compared with a password.
type stored interface {
	// matches computes the hash of a prepared password and compares it.
	matches(prepared string) bool
	// kib is the memory that this takes.
	kib() int
	// work is the time that this takes, in the unit of Argon2id.
	work() int
	fmt.Stringer
}

// parse reads a stored hash of any scheme. Its cost is within bounds.
func parse(text string) (stored, error) {
	switch {
	case len(text) > maxEncoded:
		return nil, errPHC
	case strings.HasPrefix(text, "$2"):
		return parseBcrypt(text)
	case strings.HasPrefix(text, "$pbkdf2-"):
		return parsePBKDF2(text)
	}
	return parsePHC(text)
}

// A bcryptHash is a hash in the form of crypt(3): $2b$10$ and 53 characters.
type bcryptHash struct {
	text string
	cost int
}

var errBcrypt = errors.New("not a bcrypt hash ($2a$, $2b$ or $2y$, two digits, $, 53 characters)")

// parseBcrypt takes the three names of the one algorithm. $2x$ is the hash of a faulty
// implementation.
func parseBcrypt(text string) (bcryptHash, error) {
	h := bcryptHash{text: text}
	if len(text) != 60 || !strings.Contains("$2a$ $2b$ $2y$", text[:4]) || text[6] != '$' || strings.Trim(text[4:6], "0123456789") != "" ||
		strings.Trim(text[7:], "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return h, errBcrypt
	}
	var err error
	if h.cost, err = strconv.Atoi(text[4:6]); err != nil || h.cost < bcrypt.MinCost {
		return h, errBcrypt
	}
	if h.cost > maxBcryptCost {
		return h, fmt.Errorf("password hash: the cost of bcrypt must be at most %d", maxBcryptCost)
	}
	return h, nil
}

// maxBcrypt is how many bytes of a password bcrypt hashes.
const maxBcrypt = 72

// matches ignores what follows the first 72 bytes, as the system did that made the hash: package
// bcrypt refuses to make a hash of more, and many others do not. A password with a zero byte never
// matches, because some implementations end at it, so that a shorter one would match as well.
func (h bcryptHash) matches(prepared string) bool {
	zero := strings.IndexByte(prepared, 0) >= 0
	key := []byte(prepared[:min(len(prepared), maxBcrypt)])
	return bcrypt.CompareHashAndPassword([]byte("$2b"+h.text[3:]), key) == nil && !zero
}

func (h bcryptHash) kib() int       { return 4 }
func (h bcryptHash) work() int      { return bcryptWork << h.cost }
func (h bcryptHash) String() string { return h.text }

// A pbkdf2Hash is a hash by RFC 8018 with HMAC. It is stored as $pbkdf2-sha256$i=ITERATIONS$salt$hash
// or $pbkdf2-sha512$…, with both in base64 without padding.
type pbkdf2Hash struct {
	digest     string // "sha256" or "sha512"
	iterations int
	salt, hash []byte
}

var errPBKDF2 = errors.New("not a PBKDF2 hash with SHA-256 or SHA-512 in one of the forms that are read")

// pbkdf2Digests are the hash functions, their size in bytes, and what an iteration costs.
var pbkdf2Digests = map[string]struct {
	new  func() hash.Hash
	size int
	work float64
}{
	"sha256": {sha256.New, sha256.Size, sha256Work},
	"sha512": {sha512.New, sha512.Size, sha512Work},
}

// parsePBKDF2 reads the stored form alone.
func parsePBKDF2(text string) (pbkdf2Hash, error) {
	part := strings.Split(text, "$")
	if len(part) != 5 || part[0] != "" {
		return pbkdf2Hash{}, errPBKDF2
	}
	iterations, ok := strings.CutPrefix(part[2], "i=")
	salt, errSalt := base64.RawStdEncoding.Strict().DecodeString(part[3])
	sum, errSum := base64.RawStdEncoding.Strict().DecodeString(part[4])
	if !ok || errSalt != nil || errSum != nil {
		return pbkdf2Hash{}, errPBKDF2
	}
	h, err := newPBKDF2(strings.TrimPrefix(part[1], "pbkdf2-"), iterations, salt, sum)
	if err == nil && h.String() != text {
		err = errPBKDF2
	}
	return h, err
}

// newPBKDF2 keeps of the hash no more than the first block: the blocks are independent, so that
// whoever guesses computes only one of them.
func newPBKDF2(digest, iterations string, salt, sum []byte) (pbkdf2Hash, error) {
	d, known := pbkdf2Digests[digest]
	n, err := strconv.Atoi(iterations)
	if !known || err != nil || n < 1 || len(salt) < 8 || len(salt) > 64 || len(sum) < 16 {
		return pbkdf2Hash{}, errPBKDF2
	}
	if n > maxPBKDF2Iterations {
		return pbkdf2Hash{}, fmt.Errorf("password hash: the iterations of PBKDF2 must be at most %d", maxPBKDF2Iterations)
	}
	return pbkdf2Hash{digest, n, salt, sum[:min(len(sum), d.size)]}, nil
}

func (h pbkdf2Hash) matches(prepared string) bool {
	got, err := pbkdf2.Key(pbkdf2Digests[h.digest].new, prepared, h.salt, h.iterations, len(h.hash))
	return err == nil && subtle.ConstantTimeCompare(got, h.hash) == 1
}

func (h pbkdf2Hash) kib() int { return 4 }
func (h pbkdf2Hash) work() int {
	return int(float64(h.iterations) * pbkdf2Digests[h.digest].work)
}

func (h pbkdf2Hash) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$pbkdf2-%s$i=%d$%s$%s", h.digest, h.iterations, b64.EncodeToString(h.salt), b64.EncodeToString(h.hash))
}

// Foreign returns a hash that another system has made in the form in which it is stored. It reads
//
//   - Argon2id: a PHC string (RFC 9106);
//   - bcrypt: $2a$, $2b$ and $2y$;
//   - PBKDF2 with SHA-256 or SHA-512: $pbkdf2-sha256$i=N[,l=N]$salt$hash (the PHC form, as of Auth0),
//     $pbkdf2-sha256$N$salt$hash (passlib's, with . for +), and pbkdf2_sha256$N$salt$hash (Django's,
//     whose salt is the text itself and whose hash is in padded base64).
//
// The error says why a hash is not taken: it is in none of these forms, costs more than is allowed,
// or so little that whoever steals the database finds the password. It shows nothing of the hash. At
// the first login the hash is replaced by one of today's cost (Hasher.Outdated).
func Foreign(text string) (string, error) {
	h, err := parseForeign(text)
	switch {
	case errors.Is(err, errPHC):
		return "", problem.New(problem.Invalid, "invalid_password_hash",
			"this is no password hash that is read here: Argon2id as a PHC string, bcrypt, or PBKDF2 with SHA-256 or SHA-512")
	case errors.Is(err, errBcrypt), errors.Is(err, errPBKDF2):
		return "", problem.New(problem.Invalid, "invalid_password_hash", "this is %v", err)
	case err != nil:
		return "", problem.New(problem.Invalid, "invalid_password_hash", "%v", err)
	}
	return h.String(), tooWeak(h)
}

// tooWeak returns why a hash is too cheap to be imported.
func tooWeak(h stored) error {
	const code = "weak_password_hash"
	switch h := h.(type) {
	case encoded:
		if h.memory < minForeignMemory || h.work() < minForeignWork {
			return problem.New(problem.Invalid, code,
				"a password hash has at least %d KiB of memory, and %d KiB times iterations", minForeignMemory, minForeignWork)
		}
	case bcryptHash:
		if h.cost < minBcryptCost {
			return problem.New(problem.Invalid, code, "a bcrypt hash has at least the cost %d", minBcryptCost)
		}
	case pbkdf2Hash:
		if h.iterations < minPBKDF2Iterations {
			return problem.New(problem.Invalid, code, "a PBKDF2 hash has at least %d iterations", minPBKDF2Iterations)
		}
	}
	return nil
}

// parseForeign is parse for the forms of other systems as well.
func parseForeign(text string) (stored, error) {
	if len(text) > maxEncoded {
		return nil, errPHC
	}
	if rest, ok := strings.CutPrefix(text, "pbkdf2_"); ok { // Django's
		part := strings.Split(rest, "$")
		if len(part) != 4 {
			return nil, errPBKDF2
		}
		sum, err := base64.StdEncoding.Strict().DecodeString(part[3])
		if err != nil {
			return nil, errPBKDF2
		}
		return newPBKDF2(part[0], part[1], []byte(part[2]), sum)
	}
	rest, ok := strings.CutPrefix(text, "$pbkdf2-")
	if !ok {
		return parse(text)
	}
	part := strings.Split(rest, "$")
	if len(part) != 4 {
		return nil, errPBKDF2
	}
	iterations, phc := strings.CutPrefix(part[1], "i=")
	b64 := base64.RawStdEncoding.Strict()
	if phc {
		iterations, _, _ = strings.Cut(iterations, ",l=")
	} else { // passlib's
		part[2], part[3] = strings.ReplaceAll(part[2], ".", "+"), strings.ReplaceAll(part[3], ".", "+")
	}
	salt, errSalt := b64.DecodeString(strings.TrimRight(part[2], "="))
	sum, errSum := b64.DecodeString(strings.TrimRight(part[3], "="))
	if errSalt != nil || errSum != nil {
		return nil, errPBKDF2
	}
	return newPBKDF2(part[0], iterations, salt, sum)
}
