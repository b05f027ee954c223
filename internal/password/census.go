package password

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// A Census says how the stored hashes are made, while some of them come from another system.
type Census struct {
	// Key is a secret of all replicas: which names pretend to have which hash depends on it.
	Key []byte `json:"key"`
	// Own is how many users have an Argon2id hash.
	Own int64 `json:"own"`
	// Foreign is how many users have a hash of another system, by what Kind returns of it.
	Foreign map[string]int64 `json:"foreign,omitempty"`

	kinds []kind // the dearest first
	all   int64
}

// A kind is a scheme with its cost, for as many users.
type kind struct {
	decoy stored // to which no password leads
	users int64
}

// Kind returns the scheme and the cost of a stored hash of another system: "$2b$12$" or
// "$pbkdf2-sha256$i=600000$". The beginning of the hash is enough. "": it is no such hash.
func Kind(begins string) string {
	part := strings.SplitN(begins, "$", 4)
	if len(part) < 4 || part[0] != "" {
		return ""
	}
	text := "$" + part[1] + "$" + part[2] + "$"
	if strings.HasPrefix(text, "$2") && len(text) == 7 {
		text = "$2b" + text[3:]
	} else if !strings.HasPrefix(text, "$pbkdf2-") {
		return ""
	}
	return text
}

// Users returns how many users have a hash of another system.
func (c *Census) Users() (n int64) {
	for _, users := range c.Foreign {
		n += users
	}
	return n
}

// Pretend makes the names that nobody has cost what the hashes of users cost: if a third of the users
// have bcrypt hashes of cost 12, then so does a third of those names, and always the same ones. Who
// measures answers learns of a name whether its hash, if it has one, would come from another system,
// and not whether it has one. When users log in and get a hash of today's cost, names follow at the
// next census. Without a census, or where it counts no hash of another system, those names cost
// what today's hash costs.
//
// A kind of which no hash can be verified, as one that costs too much, does not count: its users cost
// what names cost.
func (h *Hasher) Pretend(c Census) {
	c.all = c.Own
	for like, users := range c.Foreign {
		decoy, err := h.decoyLike(like)
		if err != nil {
			continue
		}
		c.all += users
		c.kinds = append(c.kinds, kind{decoy, users})
	}
	slices.SortFunc(c.kinds, func(a, b kind) int {
		return cmp.Or(cmp.Compare(b.decoy.work(), a.decoy.work()), cmp.Compare(b.users, a.users))
	})
	h.census.Store(&c)
}

// decoyLike makes a hash of a kind to which no password leads.
func (h *Hasher) decoyLike(like string) (stored, error) {
	random := make([]byte, saltBytes+hashBytes)
	if _, err := io.ReadFull(h.rand, random); err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	if strings.HasPrefix(like, "$2") {
		const letters = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
		text := []byte(like)
		for i := range 53 {
			// The last letter of the salt has two bits that count.
			letter := letters[random[i%len(random)]%64]
			if i == 21 {
				letter = '.'
			}
			text = append(text, letter)
		}
		return parseBcrypt(string(text))
	}
	part := strings.Split(like, "$")
	if len(part) != 4 {
		return nil, errPBKDF2
	}
	return newPBKDF2(strings.TrimPrefix(part[1], "pbkdf2-"), strings.TrimPrefix(part[2], "i="), random[:saltBytes], random[saltBytes:])
}

// pretended returns what a name that nobody has costs.
func (h *Hasher) pretended(ctx context.Context) stored {
	c := h.census.Load()
	if c == nil || len(c.kinds) == 0 {
		return h.decoy
	}
	source, _ := ctx.Value(sourceKey{}).(Source)
	mac := hmac.New(sha256.New, c.Key)
	mac.Write([]byte(source.Account))
	place := float64(binary.BigEndian.Uint64(mac.Sum(nil))) / math.MaxUint64 * float64(c.all)
	for _, k := range c.kinds {
		if place -= float64(k.users); place < 0 {
			return k.decoy
		}
	}
	return h.decoy
}

// foreignUsers is the metric.
func (h *Hasher) foreignUsers() float64 {
	c := h.census.Load()
	if c == nil {
		return 0
	}
	return float64(c.Users())
}
