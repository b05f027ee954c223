package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/internal/yamlfile"
)

// A ForwardedHeader is a value of server.forwarded_header.
type ForwardedHeader string

const (
	ForwardedAuto ForwardedHeader = "auto"
	ForwardedFor  ForwardedHeader = "X-Forwarded-For"
	Forwarded     ForwardedHeader = "Forwarded"
)

// A StateBackend is a value of state.backend.
type StateBackend string

const (
	StateAuto   StateBackend = "auto"
	StateMemory StateBackend = "memory"
	StateSQL    StateBackend = "sql"
	StateRedis  StateBackend = "redis"
	StateTiered StateBackend = "tiered"
)

// A Discovery is a value of cluster.discovery.
type Discovery string

const (
	DiscoveryDatabase   Discovery = "database"
	DiscoveryStatic     Discovery = "static"
	DiscoveryDNS        Discovery = "dns"
	DiscoveryKubernetes Discovery = "kubernetes"
)

// A KeyMode is a value of tokens.keys.
type KeyMode string

const (
	KeysAuto     KeyMode = "auto"
	KeysMemory   KeyMode = "memory"
	KeysDatabase KeyMode = "database"
	KeysSecret   KeyMode = "secret"
	KeysPKCS11   KeyMode = "pkcs11"
	KeysRemote   KeyMode = "remote"
)

// A RemoteKind is a value of tokens.remote.kind.
type RemoteKind string

const (
	RemoteTransit RemoteKind = "transit"
	RemoteHTTP    RemoteKind = "http"
)

// A RevocationCheck is a value of revocation.check.
type RevocationCheck string

const (
	CheckLocal  RevocationCheck = "local"
	CheckShared RevocationCheck = "shared"
)

// A LimitsOutage is a value of limits.on_outage.
type LimitsOutage string

const (
	LimitsDeny  LimitsOutage = "deny"
	LimitsLocal LimitsOutage = "local"
)

// A LogFormat is a value of log.format.
type LogFormat string

const (
	LogAuto LogFormat = "auto"
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// OnOutage is what happens to tokens while it is not known which of them are revoked. The
// zero value denies them.
type OnOutage struct {
	Allow bool
	For   time.Duration // with Allow: for how long; 0: without end
}

// MarshalText writes deny, allow or "allow 2m".
func (o OnOutage) MarshalText() ([]byte, error) {
	switch {
	case !o.Allow:
		return []byte("deny"), nil
	case o.For == 0:
		return []byte("allow"), nil
	default:
		return []byte("allow " + formatDuration(o.For)), nil
	}
}

// UnmarshalText reads what MarshalText writes.
func (o *OnOutage) UnmarshalText(text []byte) error {
	words := strings.Fields(string(text))
	switch {
	case len(words) == 1 && words[0] == "deny":
		*o = OnOutage{}
		return nil
	case len(words) == 1 && words[0] == "allow":
		*o = OnOutage{Allow: true}
		return nil
	case len(words) == 2 && words[0] == "allow":
		d, err := parseDuration(words[1])
		if err != nil {
			return err
		}
		if d == 0 {
			return fmt.Errorf("allow 0s allows nothing; write deny")
		}
		*o = OnOutage{Allow: true, For: d}
		return nil
	}
	return fmt.Errorf("%q is not deny, allow, or allow and a duration (allow 2m)", text)
}

// KiB is an amount of memory in units of 1024 bytes.
type KiB uint32

// MarshalText writes the amount in the largest unit that divides it: 19MiB.
func (k KiB) MarshalText() ([]byte, error) {
	switch {
	case k != 0 && k%(1<<20) == 0:
		return fmt.Appendf(nil, "%dGiB", k>>20), nil
	case k != 0 && k%(1<<10) == 0:
		return fmt.Appendf(nil, "%dMiB", k>>10), nil
	default:
		return fmt.Appendf(nil, "%dKiB", k), nil
	}
}

// UnmarshalText reads a number with KiB, MiB or GiB; a number alone is KiB.
func (k *KiB) UnmarshalText(text []byte) error {
	number, unit := string(text), uint64(1)
	for suffix, kib := range map[string]uint64{"KiB": 1, "MiB": 1 << 10, "GiB": 1 << 20} {
		if before, found := strings.CutSuffix(number, suffix); found {
			number, unit = strings.TrimSpace(before), kib
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || n*unit > 1<<32-1 {
		return fmt.Errorf("%q is not an amount of memory such as 19MiB or 65536KiB", text)
	}
	*k = KiB(n * unit)
	return nil
}

// parseDuration reads 30s, 3h or 1h30m. It refuses negative durations.
func parseDuration(text string) (time.Duration, error) {
	if _, err := strconv.Atoi(text); err == nil && text != "0" {
		return 0, fmt.Errorf("%q has no unit; write %ss, %sm or %sh", text, text, text, text)
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration such as 30s, 5m or 3h", text)
	}
	return d, nil
}

// formatDuration writes a duration as people write it: 3h rather than 3h0m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if trimmed, found := strings.CutSuffix(s, "m0s"); found {
		s = trimmed + "m"
	}
	if trimmed, found := strings.CutSuffix(s, "h0m"); found {
		s = trimmed + "h"
	}
	return s
}

// parseList reads items that are separated by commas or line breaks.
func parseList(text string) []string {
	list := []string{}
	for item := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '\n' || r == '\r' }) {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

// A Ratio is a part of a whole, from 0 to 1.
type Ratio float64

// MarshalText writes 0.25.
func (r Ratio) MarshalText() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(r), 'f', -1, 64), nil
}

// UnmarshalText reads 0.25.
func (r *Ratio) UnmarshalText(text []byte) error {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !(f >= 0 && f <= 1) { // NaN is neither
		return fmt.Errorf("%q is not a number from 0 to 1", text)
	}
	*r = Ratio(f)
	return nil
}

// A Rate allows Count events in Per. The zero value counts nothing.
type Rate struct {
	Count int
	Per   time.Duration
}

// Bounds of a Rate.
const (
	MaxRateCount = 1_000_000
	MaxRatePer   = 366 * 24 * time.Hour
)

// MarshalText writes 20/1m, or off.
func (r Rate) MarshalText() ([]byte, error) {
	if r == (Rate{}) {
		return []byte("off"), nil
	}
	return fmt.Appendf(nil, "%d/%s", r.Count, formatDuration(r.Per)), nil
}

// UnmarshalText reads what MarshalText writes; the duration may also be a unit alone (20/m).
func (r *Rate) UnmarshalText(text []byte) error {
	if string(text) == "off" {
		*r = Rate{}
		return nil
	}
	number, duration, ok := strings.Cut(string(text), "/")
	if duration != "" && strings.Trim(duration[:1], "0123456789") != "" {
		duration = "1" + duration
	}
	count, err := strconv.Atoi(number)
	per, perErr := parseDuration(duration)
	switch {
	case !ok || err != nil || perErr != nil:
		return fmt.Errorf("%q is not a rate such as 20/1m, and not off", text)
	case count < 1 || count > MaxRateCount:
		return fmt.Errorf("%q: a rate allows 1 to %d; write off to count nothing", text, MaxRateCount)
	case per < time.Second || per > MaxRatePer:
		return fmt.Errorf("%q: the time of a rate is 1s to %s", text, formatDuration(MaxRatePer))
	}
	*r = Rate{count, per}
	return nil
}

// Required is a value of mfa.required: who must present a second factor at a login.
type Required struct {
	Mode   RequiredMode
	Claims []ClaimPattern // with RequiredClaims: at least one
}

// A RequiredMode is the word with which a Required begins.
type RequiredMode string

const (
	RequiredNever        RequiredMode = "never"
	RequiredWhenEnrolled RequiredMode = "when-enrolled"
	RequiredAlways       RequiredMode = "always"
	RequiredClaims       RequiredMode = "claims"
)

// A ClaimPattern stands for the claims of a name, or for one of them.
type ClaimPattern struct {
	Name  string // as tokens have it
	Value string // one value; "": any
}

// MarshalText writes never, when-enrolled, always, or claims:[a,b=c].
func (r Required) MarshalText() ([]byte, error) {
	if r.Mode != RequiredClaims {
		return []byte(r.Mode), nil
	}
	claims := make([]string, len(r.Claims))
	for i, c := range r.Claims {
		claims[i] = c.Name
		if c.Value != "" {
			claims[i] += "=" + c.Value
		}
	}
	return fmt.Appendf(nil, "%s:[%s]", r.Mode, strings.Join(claims, ",")), nil
}

// UnmarshalText reads what MarshalText writes, also with spaces around the commas.
func (r *Required) UnmarshalText(text []byte) error {
	list, isList := strings.CutPrefix(string(text), string(RequiredClaims)+":[")
	list, isClosed := strings.CutSuffix(list, "]")
	if isList && isClosed {
		claims, err := parseClaims(list)
		if err == nil {
			*r = Required{RequiredClaims, claims}
		}
		return err
	}
	words := []string{string(RequiredNever), string(RequiredWhenEnrolled), string(RequiredAlways)}
	if !slices.Contains(words, string(text)) {
		near := yamlfile.Nearest(string(text), append(words, string(RequiredClaims)))
		if near == string(RequiredClaims) || strings.HasPrefix(string(text), string(RequiredClaims)) {
			near = "claims:[NAME, NAME=VALUE]"
		}
		return fmt.Errorf("%q is not never, when-enrolled, always, or claims:[…]%s", text, yamlfile.DidYouMean(near))
	}
	*r = Required{Mode: RequiredMode(text)}
	return nil
}

// parseClaims reads a list of NAME and NAME=VALUE.
func parseClaims(list string) ([]ClaimPattern, error) {
	if strings.TrimSpace(list) == "" {
		return nil, errors.New("claims:[] names nobody; write when-enrolled, or name a claim")
	}
	var claims []ClaimPattern
	for item := range strings.SplitSeq(list, ",") {
		name, value, hasValue := strings.Cut(strings.TrimSpace(item), "=")
		if err := token.CheckClaimName(name); err != nil {
			return nil, fmt.Errorf("%q cannot be the name of a claim: %s", name, detail(err))
		}
		if hasValue {
			// A value that is not in its normal form would match no claim.
			normal, err := names.ClaimValue(value)
			if err != nil {
				return nil, fmt.Errorf("%q cannot be the value of %s: %s", value, name, detail(err))
			}
			value = normal
		}
		claims = append(claims, ClaimPattern{name, value})
	}
	return claims, nil
}

// detail returns the sentence of an error without its code, which is for clients of the API.
func detail(err error) string {
	if e := (*problem.Error)(nil); errors.As(err, &e) {
		return e.Detail
	}
	return err.Error()
}
