package observability

import (
	"encoding/base64"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/watchword-auth/watchword/test/replica"
)

var record = flag.Bool("record", false, "write the table of metrics in docs/observability.md")

func TestMetrics(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	t.Run("counts", func(t *testing.T) { testCounts(t, d) })
	t.Run("conventions", func(t *testing.T) { testConventions(t, d) })
	t.Run("manual", func(t *testing.T) { testManual(t, d) })
	t.Run("expressions", func(t *testing.T) { testExpressions(t, d) })
	t.Run("documents", func(t *testing.T) { testDocuments(t, d) })
	t.Run("prometheus", func(t *testing.T) { testPrometheus(t, d) })
	t.Run("hostile clients", func(t *testing.T) { testHostileClients(t, d) })
}

// What was done is counted, once.
func testCounts(t *testing.T, d *deployment) {
	for _, w := range []*replica.World{d.two, d.alone} {
		for name, want := range map[string]float64{
			`watchword_requests_total{outcome="ok",use="login"}`:                  1,
			`watchword_requests_total{outcome="invalid_credentials",use="login"}`: 1,
			`watchword_requests_total{outcome="ok",use="renew"}`:                  1,
			`watchword_access_tokens_issued_total`:                                2,
			`watchword_sessions_begun_total`:                                      1,
			`watchword_revocations_total{kind="sid",reason="logout"}`:             1,
			`watchword_password_hash_refusals_total`:                              0,
			`watchword_ready`:                                                     1,
			`watchword_build_info`:                                                1,
		} {
			if got := w.Metric(name); got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		if n := w.Metric("watchword_password_hash_duration_seconds_count"); n < 2 {
			t.Errorf("%v hashes", n)
		}
	}
	// A login is counted by its address and its account.
	for _, by := range []string{"address", "account"} {
		if n := d.two.Metric(`watchword_limit_allowed_total{by="` + by + `",class="login"}`); n != 2 {
			t.Errorf("%v logins were counted by %s", n, by)
		}
	}
	if n := d.two.Metric(`watchword_state_operation_duration_seconds_count{backend="sql",operation="limit"}`); n < 4 {
		t.Errorf("%v steps of the limits were measured", n)
	}
	if n := d.two.Metric(`watchword_state_operation_duration_seconds_count{backend="redis",operation="write_copies"}`); n == 0 {
		t.Error("no copy was measured")
	}
	if n := d.two.Metric("watchword_state_operation_failures_total"); n != 0 {
		t.Errorf("%v operations have failed", n)
	}
}

// The names, types and texts are as Prometheus has them.
func testConventions(t *testing.T, d *deployment) {
	name := regexp.MustCompile(`^watchword_[a-z]+(_[a-z]+)*$`)
	for _, w := range d.all() {
		problems, err := promlint.New(strings.NewReader(scrape(w))).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	for _, m := range metrics(t, d.all()...) {
		if !m.own() {
			continue
		}
		if !name.MatchString(m.name) {
			t.Errorf("%s: not a name of ours", m.name)
		}
		if m.help == "" || !strings.ContainsAny(m.help[:1], "ABCDEFGHIJKLMNOPQRSTUVWXYZ01") || !strings.HasSuffix(strings.TrimRight(m.help, ")"), ".") && !strings.HasSuffix(m.help, ").") {
			t.Errorf("%s: the help is no sentence: %q", m.name, m.help)
		}
		if m.kind == "histogram" && !strings.HasSuffix(m.name, "_seconds") {
			t.Errorf("%s: a histogram of what unit?", m.name)
		}
		if m.kind == "counter" != strings.HasSuffix(m.name, "_total") {
			t.Errorf("%s: a %s", m.name, m.kind)
		}
	}
}

const (
	manual     = "../../docs/observability.md"
	tableBegin = "<!-- The table is written by: go test ./test/observability -run TestMetrics -record -->\n"
	tableEnd   = "<!-- end of the table -->\n"
)

// The manual has all metrics, with their labels and texts.
func testManual(t *testing.T, d *deployment) {
	var table strings.Builder
	table.WriteString("| metric | type | labels | |\n|---|---|---|---|\n")
	for _, m := range sorted(metrics(t, d.all()...)) {
		if !m.own() {
			continue
		}
		labels := slices.Sorted(maps.Keys(m.labels))
		for i, l := range labels {
			labels[i] = "`" + l + "`"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", m.name, m.kind, strings.Join(labels, ", "), strings.ReplaceAll(m.help, "|", "\\|"))
	}
	for _, name := range declared(t) {
		if !strings.Contains(table.String(), "`"+name+"`") {
			t.Errorf("the code has %s, which none of these replicas exports", name)
		}
	}
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), tableBegin)
	written, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table", manual)
	}
	if *record {
		if err := os.WriteFile(manual, []byte(before+tableBegin+table.String()+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if written == table.String() {
		return
	}
	for line := range strings.Lines(table.String()) {
		if !strings.Contains(written, line) {
			t.Errorf("%s lacks %s", manual, line)
		}
	}
	for line := range strings.Lines(written) {
		if !strings.Contains(table.String(), line) {
			t.Errorf("%s has what no replica exports: %s", manual, line)
		}
	}
	t.Errorf("the table of %s is stale; go test ./test/observability -run TestMetrics -record", manual)
}

// declared are the names of metrics that stand in the code as a whole.
func declared(t *testing.T) (names []string) {
	t.Helper()
	name := regexp.MustCompile(`(?:Name:\s+|NewDesc\()"(watchword_[a-z_]+[a-z])"`)
	err := filepath.WalkDir("../../internal", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range name.FindAllStringSubmatch(string(text), -1) {
			names = append(names, m[1])
		}
		return err
	})
	if err != nil || len(names) < 50 {
		t.Fatalf("%d names of metrics were found: %v", len(names), err)
	}
	return names
}

// Whatever clients send, it is in no label, and the number of series is bounded.
func testHostileClients(t *testing.T, d *deployment) {
	w, other := d.one, d.two
	round := func(n int) {
		mark := fmt.Sprintf("zzhostile%d", n)
		attack(w, n, mark)
		attack(other, n, mark)
	}
	for n := range 3 { // what any route can answer with is counted now
		round(n)
	}
	before := seriesOf(w)
	for n := range 30 {
		round(1000 + n)
	}
	text := strings.ToLower(scrape(w))
	for line := range strings.Lines(text) {
		if strings.Contains(line, "zzhostile") || strings.Contains(line, "203.0.") || strings.Contains(line, "2001:db8") {
			t.Errorf("a client's text is in a label: %s", line)
		}
	}
	var grown []string
	for s := range seriesOf(w) {
		if !before[s] {
			grown = append(grown, s)
		}
	}
	if len(grown) > 5 { // an answer that did not come in the first rounds, such as 429
		t.Errorf("%d series have come with 30 times as many clients, such as %s", len(grown), grown[:5])
	}
	if n := len(seriesOf(w)); n > 3000 {
		t.Errorf("a replica exports %d series", n)
	}
}

// seriesOf are the series that a replica exports, without those of histograms' buckets.
func seriesOf(w *replica.World) map[string]bool {
	all := map[string]bool{}
	for line := range strings.Lines(scrape(w)) {
		if at := strings.LastIndexByte(line, ' '); at > 0 && line[0] != '#' && !strings.Contains(line, "_bucket{") {
			all[line[:at]] = true
		}
	}
	return all
}

// attack sends a mark wherever a client may write something. The id of a request is another one,
// since the log has it, where nothing must be that was a password or a token.
func attack(w *replica.World, n int, mark string) {
	address := fmt.Sprintf("203.0.%d.%d", n/250, n%250+1)
	from := map[string]string{"X-Forwarded-For": address}
	with := func(more map[string]string) map[string]string {
		h := maps.Clone(from)
		maps.Copy(h, more)
		return h
	}
	b64 := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	forged := b64(fmt.Sprintf(`{"alg":"ES256","typ":"at+jwt","kid":%q}`, mark)) + "." + b64(fmt.Sprintf(`{"iss":%q,"sub":%q}`, mark, mark)) + "." + b64(strings.Repeat("s", 64))
	otherAlgorithm := b64(fmt.Sprintf(`{"alg":%q,"typ":%q,"kid":"k"}`, mark, mark)) + "." + b64("{}") + "." + b64("s")

	for _, path := range []string{"/" + mark, "/api/" + mark, "/api/users/" + mark, "/api/sessions/" + mark, "/admin/" + mark, "/" + mark + "/../x", "/api/verify/" + mark, "/api/limits/" + mark + "/" + mark} {
		send(w, "GET", path, "", "", from)
		send(w, strings.ToUpper(mark), path, forged, "", from)
	}
	send(w, strings.ToUpper(mark), "/api/verify", forged, "", from) // a route for all methods
	send(w, "GET", "/api/verify", forged, "", with(map[string]string{"Host": mark + ".example.com", "User-Agent": mark, "X-Forwarded-Host": mark, "X-Forwarded-Method": mark, "X-Forwarded-Uri": "/" + mark}))
	send(w, "GET", "/api/verify", otherAlgorithm, "", from)
	send(w, "GET", "/api/verify?"+mark+"="+mark, mark, "", with(map[string]string{"X-Request-Id": fmt.Sprintf("zzhostileid%d", n), "Traceparent": mark, "Cookie": mark + "=" + mark}))
	send(w, "POST", "/api/login", "", fmt.Sprintf(`{"username":%q,"password":%q}`, mark, mark), from)
	send(w, "POST", "/api/login", "", fmt.Sprintf(`{"username":"alice","password":%q,"audience":%q}`, mark, mark), with(map[string]string{"X-Forwarded-For": fmt.Sprintf("2001:db8:%x::1", n)}))
	send(w, "POST", "/api/login", "", fmt.Sprintf(`{%q:1}`, mark), from)
	send(w, "POST", "/api/login/mfa", "", fmt.Sprintf(`{"mfa_token":%q,"method":%q,"code":%q}`, mark, mark, mark), from)
	send(w, "POST", "/api/renew", "", fmt.Sprintf(`{"refresh_token":%q}`, mark), from)
	send(w, "POST", "/api/revocations", forged, fmt.Sprintf(`{"kid":%q,"reason":%q}`, mark, mark), from)
	send(w, "GET", "/api/revocations?after=0&limit=1&"+mark+"=1", "", "", with(map[string]string{"Last-Event-ID": mark, "Accept": mark}))
	send(w, "OPTIONS", "/api/verify/"+mark, "", "", with(map[string]string{"Origin": "https://app.example.com", "Access-Control-Request-Method": "GET"}))
	send(w, "OPTIONS", "/api/login", "", "", with(map[string]string{"Origin": "https://" + mark, "Access-Control-Request-Method": mark}))
	send(w, "GET", "/api/pkeys?"+mark, "", "", with(map[string]string{"Watchword-Nonce": mark, "If-None-Match": mark}))
	send(w, "POST", "/api/cluster/token", "", fmt.Sprintf(`{"nonce":%q}`, mark), from)
	send(w, "POST", "/signin", "", mark, with(map[string]string{"Content-Type": mark}))
}
