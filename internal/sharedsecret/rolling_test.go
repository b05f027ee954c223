package sharedsecret_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/sharedsecret"
)

// A deployment is a model of replicas that share a registry: each writes its row, and reads
// those of the others, at moments that the test chooses.
type deployment struct {
	t        *rapid.T
	now      time.Time
	files    [][]sharedsecret.Secret // by replica: what its files or its environment say
	replicas []*replica              // nil: not running
	rows     []row                   // by replica, as they stand in the registry
	signed   map[string]time.Time    // kids that have signed, and when the last of their tokens ends
	tokens   int
	refusals int // of Signer
}

type row struct {
	kids []string
	live bool
}

type replica struct {
	*sharedsecret.Secrets
	seen []row // the registry when it was read last
}

const tokenLife = 30 * time.Minute

func (d *deployment) start(i int) {
	r := &replica{}
	s, err := sharedsecret.New(sharedsecret.Config{
		Algorithm: "HS256", Now: func() time.Time { return d.now }, Logger: slog.New(slog.DiscardHandler),
		Accepted: func(kid string) bool {
			for j, row := range r.seen {
				if j != i && row.live && !slices.Contains(row.kids, kid) {
					return false
				}
			}
			return true
		},
	}, d.files[i])
	if err != nil {
		d.t.Fatal(err)
	}
	r.Secrets = s
	d.replicas[i] = r
	d.write(i)
	d.read(i)
}

func (d *deployment) write(i int) { d.rows[i] = row{d.replicas[i].Kids(), true} }
func (d *deployment) read(i int)  { d.replicas[i].seen = slices.Clone(d.rows) }

// use has every replica that runs sign, and every one verify what still lives.
func (d *deployment) use() {
	for i, r := range d.replicas {
		if r == nil {
			continue
		}
		signer, err := r.Signer()
		if err != nil {
			d.refusals++
			d.t.Fatalf("replica %d does not sign: %v", i, err)
		}
		d.signed[signer.KeyID()] = d.now.Add(tokenLife)
		d.tokens++
	}
	for kid, end := range d.signed {
		if !d.now.Before(end) {
			continue
		}
		for i, r := range d.replicas {
			if r == nil {
				continue
			}
			if _, ok := r.Find(kid); !ok {
				d.t.Fatalf("replica %d refuses a token of %s", i, kid)
			}
		}
	}
}

// TestRollingChange: a secret is changed in two steps, replica by replica in any order: first
// each gets the new one with the former one besides, then, when the last token of the former
// one has expired, each loses that. Replicas re-read their files or restart, at different
// moments. No token is refused by a replica that runs, and there is always one that may sign.
func TestRollingChange(t *testing.T) {
	changes := 0
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 4).Draw(t, "replicas")
		d := &deployment{t: t, now: now, files: make([][]sharedsecret.Secret, n), replicas: make([]*replica, n), rows: make([]row, n), signed: map[string]time.Time{}}
		former, present := text("former", 32), text("present", 40)
		for i := range n {
			d.files[i] = list(former)
		}
		for i := range n {
			d.start(i)
		}
		for i := range n {
			d.read(i)
		}
		step := func(next []sharedsecret.Secret) {
			changes++
			for _, i := range rapid.Permutation(indices(n)).Draw(t, "order") {
				d.files[i] = next
				switch rapid.IntRange(0, 2).Draw(t, "how") {
				case 0: // its files are read again; the row follows later
					if err := d.replicas[i].Replace(next); err != nil {
						t.Fatal(err)
					}
					d.use()
					d.write(i)
				case 1: // it is killed and is back before its row has become silent
					d.replicas[i] = nil
					d.use()
					d.start(i)
				case 2: // it leaves, the others see that, and it is back with its new files
					d.replicas[i] = nil
					d.rows[i] = row{}
					for j, r := range d.replicas {
						if r != nil && rapid.Bool().Draw(t, "sees") {
							d.read(j)
						}
					}
					d.use()
					d.start(i)
				}
				d.use()
				for range rapid.IntRange(0, 3).Draw(t, "reads") {
					d.read(rapid.IntRange(0, n-1).Draw(t, "reader"))
					d.use()
				}
			}
			for i := range n {
				d.read(i)
			}
			d.use()
		}
		step(list(present, former))
		for i, r := range d.replicas {
			signs, err := r.Signer()
			if err != nil || signs.KeyID() == mustKid(former) {
				t.Fatalf("replica %d still signs with the former secret: %v", i, err)
			}
		}
		d.now = d.now.Add(tokenLife)
		step(list(present))
		if d.tokens == 0 {
			t.Fatal("nothing was signed")
		}
	})
	t.Logf("summary: %d rolling steps, no token refused", changes)
}

// The test above can fail: without the former secret besides, tokens are refused.
func TestAChangeWithoutOverlapIsSeen(t *testing.T) {
	w := newWorld()
	first := w.open(t, "HS256", list(text("former", 32)))
	second := newWorld().open(t, "HS256", list(text("present", 40)))
	signer, err := second.Signer()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := first.Find(signer.KeyID()); ok {
		t.Error("a secret is accepted that the replica does not have")
	}
	// As soon as the registry says that the other one does not have it, it does not sign.
	w.set(w.refused, kid(t, text("former", 32), "HS256"), true)
	if _, err := first.Signer(); !errors.Is(err, keyring.ErrNoSigningKey) {
		t.Errorf("it signs all the same: %v", err)
	}
}

func mustKid(text string) string {
	s, err := sharedsecret.New(sharedsecret.Config{Now: time.Now, Logger: slog.New(slog.DiscardHandler)}, list(text))
	if err != nil || len(s.Kids()) != 1 {
		panic(fmt.Sprint("not one kid: ", err))
	}
	return s.Kids()[0]
}

func indices(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}
