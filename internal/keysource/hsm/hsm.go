package hsm

import (
	"context"
	"log/slog"
	"time"

	"github.com/watchword-auth/watchword/internal/keysource"
)

// DefaultSessions is how many signatures are made at once where Config says nothing. An HSM on
// the network needs several at once to be busy.
const DefaultSessions = 16

// A Config says which keys are used.
type Config struct {
	Library  string                 // path of the PKCS #11 library
	PIN      func() (string, error) // of the user; called before each login
	Token    string                 // label of the token; "": any
	Serial   string                 // serial number of the token; "": any
	Key      string                 // label of the keys
	Sessions int                    // signatures at once; 0: DefaultSessions
	Logger   *slog.Logger
	Now      func() time.Time
}

// A Token is a logged-in token of an HSM.
type Token interface {
	keysource.Keeper
	// Create makes a key pair for an algorithm, with the label of the Config. The private key is
	// sensitive and not extractable, and can do nothing else than sign. Each running replica
	// finds it by its next Keys.
	Create(ctx context.Context, algorithm string) (keysource.Kept, error)
}

// Open loads the library, finds the token and logs in. The error is one sentence that says what
// the operator can do. Several Tokens of one library may be open in a process; they share the
// login, as PKCS #11 has it.
func Open(ctx context.Context, cfg Config) (Token, error) { return open(ctx, cfg) }
