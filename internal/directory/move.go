package directory

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"time"
	"unique"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/userfile"
)

// moveBatch is how many users, groups or claims are made in one transaction: few enough that it ends
// within a second, and that a live replica which writes meanwhile does not wait for long.
const moveBatch = 100

// A Refused is a claim, a group or a user of another system that was not taken.
type Refused struct {
	What string `json:"what"` // "claim", "group" or "user"
	Line int    `json:"line,omitempty"`
	Name string `json:"name"`
	Code string `json:"code"` // of the problem
	Why  string `json:"why"`
}

// Moved counts what became of the claims, groups and users of another system.
type Moved struct {
	Claims, Groups, Users int // that were made
	Present               int // that were there, just so
	Refused               int
	Links                 int // memberships and claims of groups that were made
}

// Read returns how many were read so far.
func (m Moved) Read() int { return m.Claims + m.Groups + m.Users + m.Present + m.Refused }

func (m *Moved) add(o Moved) {
	m.Claims += o.Claims
	m.Groups += o.Groups
	m.Users += o.Users
	m.Present += o.Present
	m.Refused += o.Refused
	m.Links += o.Links
}

// Moving says how Move does it.
type Moving struct {
	From   string // for the audit trail: "csv", "json" or "stoke"
	DryRun bool   // change nothing, and tell what would become of everything
	// Foreign says that the rights are those of another system, where the claim admin means
	// something else: such claims are refused.
	Foreign bool
	// Refused is called for each of what was refused, and Progress after each transaction.
	Refused  func(Refused) error
	Progress func(Moved)
}

// Move makes the claims, groups and users that a source has, in the name of the system, in
// transactions of moveBatch each. It changes nothing that is there: what is there just so is counted,
// and what is there otherwise is refused, so that the same source can be moved again. The password of
// a user who is there is not compared: they may have logged in or changed it since.
//
// A group is refused that has a claim, and a user who has a group, that is not there or that was
// refused, also if one of the same name is there: they would have other rights than before.
//
// An error says why it has ended early; what was counted until then stays.
func (s *Service) Move(ctx context.Context, source func(userfile.Sink) error, how Moving) (Moved, error) {
	m := &move{s: s, Moving: how, spoilt: map[named]bool{}, seed: maphash.MakeSeed(), pause: rowPause}
	if how.DryRun {
		m.seen, m.claims, m.groups = map[uint64]earlier{}, map[string]store.Claim{}, map[string]fromGroup{}
	}
	id, err := s.newID()
	if err != nil {
		return Moved{}, err
	}
	event := store.AuditEvent{Action: actionImport, Target: id, Outcome: audit.OK, Detail: "began: from " + how.From}
	if !how.DryRun {
		s.Audit.Record(ctx, event)
	}
	err = source(userfile.Sink{
		Claim: func(c userfile.Claim) error { return m.add(ctx, item{claim: &c}) },
		Group: func(g userfile.Group) error { return m.add(ctx, item{group: &g}) },
		User:  func(r userfile.Row) error { return m.add(ctx, item{user: &r}) },
	})
	if err == nil {
		err = m.flush(ctx)
	}
	if how.DryRun {
		return m.moved, err
	}
	end := context.WithoutCancel(ctx)
	event.Detail = fmt.Sprintf("from %s: %d claims, %d groups and %d users created, %d there already, %d refused",
		how.From, m.moved.Claims, m.moved.Groups, m.moved.Users, m.moved.Present, m.moved.Refused)
	if err != nil {
		event.Outcome = audit.Failed
	}
	s.Audit.Record(end, event)
	// Also if nobody was made: those whom an import made that was killed have not been counted.
	if _, counted := s.CountHashes(end); err == nil {
		err = counted
	}
	return m.moved, err
}

// An item is one of the three.
type item struct {
	claim *userfile.Claim
	group *userfile.Group
	user  *userfile.Row
}

// refused counts that an item is refused.
func (t *transacted) refuse(i item, p *problem.Error) {
	r := Refused{Code: p.Code, Why: cut(userfile.HideHashes(p.Detail), 300)}
	switch {
	case i.claim != nil:
		r.What, r.Line, r.Name = "claim", i.claim.Line, i.claim.Name
	case i.group != nil:
		r.What, r.Line, r.Name = "group", i.group.Line, i.group.Name
	default:
		r.What, r.Line, r.Name = "user", i.user.Line, i.user.Username
	}
	if key, err := names.Key(r.What, r.Name); err == nil && i.user == nil {
		t.spoilt = append(t.spoilt, named{r.What, key})
	}
	r.Name = cut(userfile.HideHashes(r.Name), names.MaxUsername)
	t.moved.Refused++
	t.refused = append(t.refused, r)
}

// named is a "claim" or "group" of a key.
type named struct{ what, key string }

// kind orders items: a transaction has items of one kind.
func (i item) kind() int {
	switch {
	case i.claim != nil:
		return 0
	case i.group != nil:
		return 1
	}
	return 2
}

// A fromGroup is a group with its claims.
type fromGroup struct {
	store.Group
	claims []store.Claim
}

// A move is one call of Move.
type move struct {
	s *Service
	Moving
	pause time.Duration
	batch []item
	moved Moved
	// spoilt has the claims and groups that were refused. What is there under their names is
	// something else.
	spoilt map[named]bool

	// In a dry run: what would have been made, and the users by digests of their marks. 64 bits of
	// each are enough, and a million users take some 150 MiB.
	claims map[string]store.Claim
	groups map[string]fromGroup
	seen   map[uint64]earlier
	seed   maphash.Seed
}

// An earlier user would have been made in a dry run.
type earlier struct {
	fields uint64 // a digest
	groups unique.Handle[string]
}

func (m *move) add(ctx context.Context, i item) error {
	if len(m.batch) == moveBatch || len(m.batch) > 0 && m.batch[0].kind() != i.kind() {
		if err := m.flush(ctx); err != nil {
			return err
		}
	}
	m.batch = append(m.batch, i)
	return nil
}

// flush makes what the batch has. If it cannot be made as a whole, each item is made by itself, so that
// one of them does not keep the others out.
func (m *move) flush(ctx context.Context) error {
	batch := m.batch
	m.batch = m.batch[:0]
	if len(batch) == 0 {
		return nil
	}
	done, err := m.transaction(ctx, batch)
	if p := problem.From(err); err != nil && p.Kind != problem.Unavailable && p.Kind != problem.Internal && ctx.Err() == nil {
		for n := range batch {
			one, err := m.transaction(ctx, batch[n:n+1])
			if p := problem.From(err); err != nil && p.Kind != problem.Unavailable && p.Kind != problem.Internal && ctx.Err() == nil {
				one, err = transacted{}, nil
				one.refuse(batch[n], p)
			}
			if err == nil {
				err = m.take(one)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err != nil {
		return err
	}
	return m.take(done)
}

// take keeps what a transaction has done, and tells of it.
func (m *move) take(done transacted) error {
	m.moved.add(done.moved)
	for _, one := range done.spoilt {
		m.spoilt[one] = true
	}
	maps.Copy(m.seen, done.seen)
	for _, c := range done.claims {
		m.claims[c.NameKey] = c
	}
	for _, g := range done.groups {
		m.groups[g.NameKey] = g
	}
	for _, r := range done.refused {
		if err := m.Refused(r); err != nil {
			return err
		}
	}
	m.Progress(m.moved)
	return nil
}

// transacted is what one transaction has done, which may run several times.
type transacted struct {
	moved   Moved
	refused []Refused
	spoilt  []named
	claims  []store.Claim      // of a dry run
	groups  []fromGroup        // of a dry run
	seen    map[uint64]earlier // of a dry run
}

// transaction makes a batch. While the database cannot be asked it tries again.
func (m *move) transaction(ctx context.Context, batch []item) (transacted, error) {
	for attempt := 1; ; attempt++ {
		var b *moveTx
		err := m.s.retryConflicts(func() error {
			return m.s.change(ctx, System(), Superuser, actionImport, m.From, func(c *change) error {
				b = &moveTx{change: c, move: m, known: map[string]fromGroup{}, transacted: transacted{seen: map[uint64]earlier{}}}
				return b.make(ctx, batch)
			})
		})
		if err == nil {
			return b.transacted, nil
		}
		if problem.From(err).Kind != problem.Unavailable || attempt == rowAttempts || ctx.Err() != nil {
			return transacted{}, err
		}
		select {
		case <-ctx.Done():
			return transacted{}, ctx.Err()
		case <-time.After(m.pause):
		}
	}
}

// A moveTx is a batch inside its transaction.
type moveTx struct {
	*change
	*move
	transacted
	known map[string]fromGroup // groups, by key
}

func (b *moveTx) make(ctx context.Context, batch []item) error {
	for _, i := range batch {
		var err error
		switch {
		case i.claim != nil:
			err = b.makeClaim(ctx, *i.claim)
		case i.group != nil:
			err = b.makeGroup(ctx, *i.group)
		default:
			err = b.makeUser(ctx, *i.user)
		}
		var no *refusal
		switch {
		case errors.Is(err, errPresent):
			b.transacted.moved.Present++
		case errors.As(err, &no):
			b.refuse(i, problem.From(no.error))
		case err != nil:
			return err
		}
	}
	if b.DryRun {
		return errNothing
	}
	return nil
}

// A refusal is an error of one item, before anything of it was written.
type refusal struct{ error }

// no returns why an item is refused, if the error is one that a client can do something about.
func no(err error) error {
	if p := problem.From(err); err != nil && (p.Kind == problem.Invalid || p.Kind == problem.Conflict || p.Kind == problem.NotFound || p.Kind == problem.TooLarge) {
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrStale) && !errors.Is(err, store.ErrNotFound) {
			return &refusal{err}
		}
	}
	return err
}

func differs(what, format string, args ...any) error {
	return &refusal{problem.New(problem.Conflict, what+"_differs", format, args...)}
}

func (b *moveTx) makeClaim(ctx context.Context, from userfile.Claim) error {
	var one store.Claim
	if err := patchClaim(&one, ClaimPatch{Name: &from.Name, ShortName: &from.ShortName, Value: &from.Value}); err != nil {
		return no(err)
	}
	if b.Foreign && one.ShortName == Admin {
		return &refusal{problem.New(problem.Denied, "claim_of_administration",
			"the claim %s gives rights of administration here; make a group of administrators by hand", Admin)}
	}
	found, err := b.claim(ctx, one.NameKey)
	switch {
	case err == nil && found.ShortName == one.ShortName && found.Value == one.Value:
		return errPresent
	case err == nil:
		return differs("claim", "the claim is there already, as %s=%s", found.ShortName, found.Value)
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	b.transacted.moved.Claims++
	if b.DryRun {
		b.transacted.claims = append(b.transacted.claims, one)
		return nil
	}
	return b.createClaim(ctx, &one)
}

// claim returns the claim of the key, also one that a dry run would have made.
func (b *moveTx) claim(ctx context.Context, key string) (store.Claim, error) {
	found, err := b.r.ClaimByName(ctx, key)
	if !errors.Is(err, store.ErrNotFound) || !b.DryRun {
		return found, err
	}
	if one, ok := b.move.claims[key]; ok {
		return one, nil
	}
	for _, one := range b.transacted.claims {
		if one.NameKey == key {
			return one, nil
		}
	}
	return found, err
}

func (b *moveTx) makeGroup(ctx context.Context, from userfile.Group) error {
	name, key, err := names.New("group", from.Name)
	if err != nil {
		return no(err)
	}
	g := fromGroup{Group: store.Group{Name: name, NameKey: key}}
	for _, ref := range from.Claims {
		k, err := names.Key("claim", ref)
		if err != nil {
			return no(err)
		}
		one, err := b.claim(ctx, k)
		if errors.Is(err, store.ErrNotFound) || b.move.spoilt[named{"claim", k}] {
			return &refusal{problem.New(problem.NotFound, ErrClaimNotFound.Code, "there is no claim %q, or it was refused", cut(ref, names.MaxUsername))}
		}
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(g.claims, func(other store.Claim) bool { return other.NameKey == one.NameKey }) {
			g.claims = append(g.claims, one)
		}
	}
	if !fit(sorted(g.claims)) {
		return &refusal{ErrClaimsTooLarge}
	}
	found, err := b.group(ctx, key)
	switch {
	case err == nil && RightsOf(found.claims).Include(RightsOf(g.claims)) && RightsOf(g.claims).Include(RightsOf(found.claims)):
		return errPresent
	case err == nil:
		return differs("group", "the group is there already, with other claims")
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	b.transacted.moved.Groups++
	b.transacted.moved.Links += len(g.claims)
	if b.DryRun {
		b.transacted.groups = append(b.transacted.groups, g)
		return nil
	}
	if err := b.createGroup(ctx, &g.Group); err != nil {
		return err
	}
	for _, one := range g.claims {
		if err := b.r.AddClaim(ctx, g.ID, one.ID); err != nil {
			return err
		}
		if err := b.note(ctx, "group.add_claim", g.ID, "claim %s", one.Name); err != nil {
			return err
		}
	}
	return nil
}

// group returns the group of the key with its claims, also one that a dry run would have made.
func (b *moveTx) group(ctx context.Context, key string) (fromGroup, error) {
	if g, ok := b.known[key]; ok {
		return g, nil
	}
	if g, ok := b.move.groups[key]; ok {
		return g, nil
	}
	for _, g := range b.transacted.groups {
		if g.NameKey == key {
			return g, nil
		}
	}
	found, err := b.r.GroupByName(ctx, key)
	if err != nil {
		return fromGroup{}, err
	}
	g := fromGroup{Group: found}
	if g.claims, err = b.r.ClaimsOfGroup(ctx, found.ID); err == nil {
		b.known[key] = g
	}
	return g, err
}

// sorted returns claims in the order in which the store returns them, each once.
func sorted(claims []store.Claim) []store.Claim {
	claims = slices.Clone(claims)
	slices.SortFunc(claims, func(a, b store.Claim) int {
		return strings.Compare(a.ShortName+"\x00"+a.Value, b.ShortName+"\x00"+b.Value)
	})
	return claims
}

func (b *moveTx) makeUser(ctx context.Context, row userfile.Row) error {
	if row.Wrong != nil {
		return &refusal{row.Wrong}
	}
	n := NewUser{Username: row.Username, Email: row.Email, EmailVerified: row.EmailVerified, FirstName: row.FirstName, LastName: row.LastName, Disabled: row.Disabled}
	u, err := n.user()
	if err != nil {
		return no(err)
	}
	if row.PasswordHash != "" {
		if u.PasswordHash, err = password.Foreign(row.PasswordHash); err != nil {
			return no(err)
		}
	}
	groups, err := b.groupsOf(ctx, row)
	if err != nil {
		return err
	}
	switch found, err := UserNamed(ctx, b.r, u.NameKey); {
	case err == nil:
		return b.compare(ctx, found, u, groups)
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	marks := marksOf(u)
	if b.DryRun {
		for _, mark := range marks {
			if other, ok := b.wouldBe(mark); ok && mark.Kind == foldMark {
				return b.compareWith(other, u, groups)
			}
		}
	}
	if err := names.CheckScripts(u.Username); err != nil {
		return no(err)
	}
	if u.ID, err = b.change.s.newID(); err != nil {
		return err
	}
	for n, mark := range marks {
		marks[n].UserID = u.ID
		if err := b.mayHave(ctx, mark); err != nil {
			return no(err)
		}
		switch _, ok := b.wouldBe(mark); {
		case ok && mark.Kind == emailMark:
			return &refusal{errEmailTaken}
		case ok:
			return &refusal{errLooksTaken}
		}
	}
	b.transacted.moved.Users++
	b.transacted.moved.Links += len(groups)
	if b.DryRun {
		for _, mark := range marks {
			b.transacted.seen[b.digest(mark)] = earlier{b.fieldsOf(u), unique.Make(keysOf(groups))}
		}
		return nil
	}
	u.CreatedAt, u.UpdatedAt, u.Version = b.now, b.now, 1
	if err := b.r.CreateUser(ctx, u); err != nil {
		return err // a conflict is another replica's, and the batch is made again
	}
	for _, mark := range marks {
		if err := b.r.PutMark(ctx, mark); err != nil {
			return err
		}
	}
	in := make([]string, len(groups))
	for n, g := range groups {
		in[n] = g.Name
		if err := b.r.AddMember(ctx, u.ID, g.ID); err != nil {
			return err
		}
	}
	detail := u.Username + ", imported"
	if len(in) > 0 {
		detail += " into " + cut(strings.Join(in, ", "), 300)
	}
	return b.note(ctx, "user.create", u.ID, "%s", detail)
}

// groupsOf returns the groups of a row, each once.
func (b *moveTx) groupsOf(ctx context.Context, row userfile.Row) ([]fromGroup, error) {
	var groups []fromGroup
	var claims []store.Claim
	for _, ref := range row.Groups {
		key, err := names.Key("group", ref)
		if err != nil {
			return nil, no(err)
		}
		if b.move.spoilt[named{"group", key}] {
			return nil, &refusal{problem.New(problem.NotFound, ErrGroupNotFound.Code, "the group %q was refused", cut(ref, names.MaxUsername))}
		}
		g, err := b.group(ctx, key)
		if errors.Is(err, store.ErrNotFound) {
			return nil, &refusal{problem.New(problem.NotFound, ErrGroupNotFound.Code, "there is no group %q", cut(ref, names.MaxUsername))}
		}
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(groups, func(other fromGroup) bool { return other.NameKey == g.NameKey }) {
			groups = append(groups, g)
			claims = append(claims, g.claims...)
		}
	}
	if !fit(sorted(claims)) {
		return nil, &refusal{ErrClaimsTooLarge}
	}
	return groups, nil
}

// compare returns errPresent if a user who is there is the one of a row, and otherwise what differs.
func (b *moveTx) compare(ctx context.Context, found, u store.User, groups []fromGroup) error {
	var other []string
	for _, f := range []struct {
		name string
		same bool
	}{
		{"username", found.NameKey == u.NameKey},
		{"email", found.Email == u.Email},
		{"email_verified", found.EmailVerified == u.EmailVerified},
		{"first_name", found.FirstName == u.FirstName},
		{"last_name", found.LastName == u.LastName},
		{"disabled", found.Disabled == u.Disabled},
	} {
		if !f.same {
			other = append(other, f.name)
		}
	}
	if len(groups) > 0 {
		in, err := b.r.GroupsOfUser(ctx, found.ID)
		if err != nil {
			return err
		}
		for _, g := range groups {
			if !slices.ContainsFunc(in, func(has store.Group) bool { return has.ID == g.ID }) {
				other = append(other, "groups")
				break
			}
		}
	}
	if len(other) > 0 {
		return differs("user", "the user is there already, with other %s; nothing of the user was changed", strings.Join(other, ", "))
	}
	return errPresent
}

// wouldBe returns, in a dry run, the earlier user who would have a mark that nobody else may have.
func (b *moveTx) wouldBe(mark store.Mark) (earlier, bool) {
	if !b.DryRun || !slices.Contains(exclusive, mark.Kind) {
		return earlier{}, false
	}
	key := b.digest(mark)
	if other, ok := b.transacted.seen[key]; ok {
		return other, true
	}
	other, ok := b.move.seen[key]
	return other, ok
}

func (b *moveTx) digest(mark store.Mark) uint64 {
	return maphash.String(b.seed, mark.Kind+" "+mark.Digest)
}

// fieldsOf is a digest of what compare compares, but for groups.
func (b *moveTx) fieldsOf(u store.User) uint64 {
	return maphash.String(b.seed, fmt.Sprintf("%q", []any{u.NameKey, u.Email, u.EmailVerified, u.FirstName, u.LastName, u.Disabled}))
}

// keysOf are the keys of groups, each in a line.
func keysOf(groups []fromGroup) string {
	keys := make([]string, len(groups))
	for n, g := range groups {
		keys[n] = g.NameKey
	}
	slices.Sort(keys)
	return strings.Join(keys, "\n")
}

// compareWith is compare with a user who would have been made.
func (b *moveTx) compareWith(other earlier, u store.User, groups []fromGroup) error {
	has := strings.Split(other.groups.Value(), "\n")
	if other.fields != b.fieldsOf(u) || slices.ContainsFunc(groups, func(g fromGroup) bool { return !slices.Contains(has, g.NameKey) }) {
		return differs("user", "an earlier row has this username, with something else")
	}
	return errPresent
}
