package doctor

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

// A Deployment is what the checks look at: what the doctor itself sees with the settings that the
// replicas should have, and what each replica says.
type Deployment struct {
	Config *config.Config
	// Reach is how the checks may find out something: a replica that looks now and then sends
	// nothing to others, and a person who asks wants to know everything.
	Reach Reach
	// DB is the database; nil: it could not be opened, for the reason DBErr.
	DB    *sqldb.DB
	DBErr error
	Store store.Store // on DB
	// State is the shared state as the settings name it; nil: none, or DB is nil.
	State state.Store
	// Redis is a connection to the server of redis.url; nil: there is none, or RedisErr.
	Redis    rueidis.Client
	RedisErr error
	// Installation is the id of this installation in the database; empty: not known.
	Installation string
	// Cluster is what the registry says; nil: the replica is alone, or ClusterErr.
	Cluster    *cluster.Status
	ClusterErr error
	// Replicas are those that were asked, by their base URLs.
	Replicas []Replica
	// DiscoveryErr is why cluster.discovery names no replicas; nil: it does, or was not asked.
	DiscoveryErr error
	// Ask asks a replica again, such as for a record that was written through another one.
	Ask func(ctx context.Context, base string, q Question) (Facts, error)
	// Accepts asks a replica whether it accepts a token, as replicas ask each other.
	Accepts func(ctx context.Context, base, token string) (bool, error)
	// Front is the client with which server.public_url is asked. It keeps no connection, so
	// that a load balancer chooses anew for each request, and follows no redirect.
	Front *http.Client
	// Through asks whichever replica the load balancer at server.public_url chooses, with
	// headers of its own besides; nil: there is no secret by which an answer could be believed.
	Through func(ctx context.Context, header http.Header, q Question) (Facts, error)
	Now     func() time.Time
}

// A Round is which replicas are asked, and by whom.
type Round struct {
	Asker  *cluster.Asker
	Places []discovery.Peer
	// Registered: also those live replicas of Deployment.Cluster of which none of the places is.
	Registered bool
	// Self is the replica that asks, which is found at no place; nil: the doctor is none. SelfURL
	// stands for its base URL.
	Self    *Self
	SelfURL string
}

// AskReplicas asks replicas side by side what they are, and sets what of the deployment asks them.
func (d *Deployment) AskReplicas(ctx context.Context, r Round) {
	if r.Self != nil {
		d.Replicas = append(d.Replicas, Replica{URL: r.SelfURL, Facts: r.Self.Facts(ctx, Question{}, Request{})})
	}
	d.Replicas = append(d.Replicas, askAll(ctx, r.Asker, r.Places)...)
	places := r.Places
	if r.Registered && d.Cluster != nil {
		others := d.notAsked()
		d.Replicas = append(d.Replicas, askAll(ctx, r.Asker, others)...)
		places = slices.Concat(places, others)
	}
	at := func(base string) (discovery.Peer, error) {
		i := slices.IndexFunc(places, func(p discovery.Peer) bool { return p.URL == base })
		if i < 0 {
			return discovery.Peer{}, errors.New("it is not among the replicas that were asked")
		}
		return places[i], nil
	}
	d.Ask = func(ctx context.Context, base string, q Question) (Facts, error) {
		if r.Self != nil && base == r.SelfURL {
			return r.Self.Facts(ctx, q, Request{}), nil
		}
		place, err := at(base)
		if err != nil {
			return Facts{}, err
		}
		return ask(q, func(question []byte) (string, []byte, error) { return r.Asker.Examine(ctx, place, question) })
	}
	d.Accepts = func(ctx context.Context, base, token string) (bool, error) {
		if r.Self != nil && base == r.SelfURL {
			return r.Self.Accepts(ctx, token)
		}
		place, err := at(base)
		if err != nil {
			return false, err
		}
		return r.Asker.Accepts(ctx, place, token)
	}
	d.Through = func(ctx context.Context, header http.Header, q Question) (Facts, error) {
		return ask(q, func(question []byte) (string, []byte, error) {
			return r.Asker.ExamineThrough(ctx, d.Front, d.Config.Server.PublicURL, header, question)
		})
	}
}

// notAsked are the live replicas of the registry that have not answered, and whose URL was not
// asked.
func (d *Deployment) notAsked() (others []discovery.Peer) {
	for _, r := range d.Cluster.Replicas {
		if r.Standing == cluster.Live && r.URL != "" && !slices.ContainsFunc(d.Replicas, func(asked Replica) bool {
			return asked.URL == r.URL || asked.Err == nil && asked.Facts.Instance == r.Instance
		}) {
			others = append(others, discovery.Peer{URL: r.URL})
		}
	}
	return others
}

// A Reach is how far the checks go.
type Reach int

// How far the checks go, the least first.
const (
	Own Reach = iota // settings, database, Redis and registry, by reading
	All              // also questions to replicas and through the load balancer, and writes that expire
)

// A Replica is one that was asked.
type Replica struct {
	URL   string
	Facts Facts
	Err   error // why it gave no answer that the cluster's secret vouches for
}

// A Question asks a replica what it sees. It is sealed under the cluster's secret (package
// cluster), and so is the answer.
type Question struct {
	// Read is the id of a record of the doctor's kind that the replica reads from the shared
	// state, and Write one that it writes there; empty: none.
	Read  string `json:"read,omitempty"`
	Write string `json:"write,omitempty"`
	// Count is a counter that the replica counts up by one, as an attempt is counted; empty: none.
	Count string `json:"count,omitempty"`
	// Issue asks for a token that belongs to no user and that only other replicas accept, when
	// they are asked as replicas ask each other; Revoke is the id of such a token, which the
	// replica revokes.
	Issue  bool   `json:"issue,omitempty"`
	Revoke string `json:"revoke,omitempty"`
}

// Facts are what a replica says of itself.
type Facts struct {
	Instance string    `json:"instance"`
	Process  string    `json:"process"` // made anew at each start
	Version  string    `json:"version"`
	Time     time.Time `json:"time"`            // by its clock
	Ready    string    `json:"ready,omitempty"` // why it is not ready; empty: it is
	// Settings are all settings by key, as the configuration writes them. Of a secret that all
	// replicas share there is only an HMAC under the cluster's secret, so that two can be compared,
	// and of one that is a replica's own (MayDiffer) only that it is set.
	Settings map[string]string `json:"settings"`
	// Installation is the id in the database that the replica uses, and Schema the version of it.
	Installation string `json:"installation"`
	Schema       int64  `json:"schema"`
	// Found reports whether the record of Question.Read was there, and Counted is how many
	// counts of Question.Count were admitted before this one was refused or admitted.
	Found   bool   `json:"found,omitempty"`
	Counted int64  `json:"counted,omitempty"`
	Problem string `json:"problem,omitempty"` // why what the question asked for could not be done
	// Signs is the kid of the key that the replica signs with; empty: it has none, and is not ready.
	Signs string `json:"signs,omitempty"`
	// Token answers Question.Issue, and TokenID is its id.
	Token   string `json:"token,omitempty"`
	TokenID string `json:"token_id,omitempty"`
	// Request is how the question arrived.
	Request Request `json:"request"`
}

// A Request is how a question arrived at a replica.
type Request struct {
	Peer          string   `json:"peer"`   // address and port of the connection
	Client        string   `json:"client"` // the client's address, as the replica believes it
	XForwardedFor []string `json:"x_forwarded_for,omitempty"`
	Forwarded     []string `json:"forwarded,omitempty"`
}
