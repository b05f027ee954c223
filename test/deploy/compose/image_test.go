package compose

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/test/kit"
)

// The image is built by the toolchain that go.mod names, on the Debian on which it runs, and does
// not run as root.
func TestDockerfile(t *testing.T) {
	text := read(t, docker+"/Dockerfile")
	find := func(in, pattern string) string {
		found := regexp.MustCompile(pattern).FindStringSubmatch(in)
		if found == nil {
			t.Fatalf("nothing is like %s", pattern)
		}
		return found[1]
	}
	if got, want := find(text, `ARG GO_IMAGE=golang:([0-9.]+)-`), find(read(t, root+"/go.mod"), `(?m)^toolchain go(\S+)$`); got != want {
		t.Errorf("the image is built by Go %s, and go.mod names %s", got, want)
	}
	numbers := map[string]string{"bookworm": "12", "trixie": "13", "forky": "14"}
	if built, runs := find(text, `ARG GO_IMAGE=golang:\S+-(\w+)`), find(text, `ARG HSM_IMAGE=\S+-debian(\d+):`); numbers[built] != runs {
		t.Errorf("it is built on %s and runs on Debian %s", built, runs)
	}
	finals := 0
	for _, stage := range regexp.MustCompile(`(?m)^FROM `).Split(text, -1)[1:] {
		if !strings.Contains(stage, "ENTRYPOINT") {
			continue
		}
		finals++
		if !strings.Contains(stage, "\nUSER 65532:65532\n") || !strings.Contains(stage, `ENTRYPOINT ["/watchword"]`) || strings.Contains(stage, "RUN ") {
			t.Errorf("a final stage is %s", stage)
		}
	}
	if finals != 2 {
		t.Errorf("%d stages are final", finals)
	}
	if user := "65532"; !strings.Contains(read(t, root+"/docs/deployment/docker.md"), user) {
		t.Errorf("the page does not name the user %s", user)
	}
}

// What the program is compiled from is sent to the engine, and nothing that is secret.
func TestDockerignore(t *testing.T) {
	sent := func(file string) bool {
		in := false
		for line := range strings.Lines(read(t, root+"/.dockerignore")) {
			line = strings.TrimSpace(line)
			switch {
			case line == "" || line[0] == '#':
			case line == "*":
				in = false
			case line[0] == '!':
				in = in || file == line[1:] || strings.HasPrefix(file, line[1:]+"/")
			default: // **/NAME
				pattern := strings.TrimPrefix(line, "**/")
				in = in && !slices.ContainsFunc(strings.Split(file, "/"), func(part string) bool {
					match, err := path.Match(pattern, part)
					return err != nil || match
				})
			}
		}
		return in
	}
	list := exec.Command("go", "list", "-deps", "-tags", "pkcs11", "-f", `{{if .Module}}{{if .Module.Main}}{{$d := .Dir}}{{range .GoFiles}}{{$d}}/{{.}}
{{end}}{{range .CgoFiles}}{{$d}}/{{.}}
{{end}}{{range .EmbedFiles}}{{$d}}/{{.}}
{{end}}{{end}}{{end}}`, "./cmd/watchword", "./deploy/sbom")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	files := strings.Fields(string(out))
	for i, file := range files {
		if files[i], err = filepath.Rel(top, file); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range append(files, "go.mod", "go.sum", "Makefile", ".ci/goflags", ".ci/goflags.race", "deploy/docker/root.sh") {
		if !sent(file) {
			t.Errorf("%s is not sent", file)
		}
	}
	if len(files) < 200 {
		t.Errorf("the program is compiled from %d files", len(files))
	}
	for _, file := range []string{".git/config", "data/watchword.db", "bin/watchword", "deploy/docker/secrets/storage_key", "internal/sqldb/testdata/levels/x"} {
		if sent(file) {
			t.Errorf("%s is sent", file)
		}
	}
}

// The bill of materials has what the program says of itself, and is the same each time.
func TestSBOM(t *testing.T) {
	bill := func() []byte {
		out, err := exec.Command("go", "run", "../../../deploy/sbom", program, "v1.2.3").Output()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	text := bill()
	if !bytes.Equal(text, bill()) {
		t.Error("it differs each time")
	}
	type component struct {
		Name, Version, PURL string
		Hashes              []struct{ Alg, Content string }
	}
	var got struct {
		BOMFormat, SpecVersion string
		Metadata               struct{ Component component }
		Components             []component
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	main := got.Metadata.Component
	if got.BOMFormat != "CycloneDX" || got.SpecVersion != "1.6" || main.Version != "v1.2.3" || main.PURL != "pkg:golang/"+info.Main.Path+"@v1.2.3" ||
		len(main.Hashes) != 1 || main.Hashes[0].Content != hex.EncodeToString(sum[:]) {
		t.Errorf("%+v", got.Metadata)
	}
	want := []string{"pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go")}
	for _, m := range info.Deps {
		want = append(want, fmt.Sprintf("pkg:golang/%s@%s", m.Path, m.Version))
	}
	var listed []string
	for _, c := range got.Components {
		listed = append(listed, c.PURL)
	}
	if !slices.Equal(listed, want) || len(want) < 20 {
		t.Errorf("it lists %v, and the program has %v", listed, want)
	}
}

// The library of Docker Compose finds no fault with compose.yaml, and reads in it what the tests do.
func TestComposeItself(t *testing.T) {
	if !kit.Soak() {
		return // it has to be compiled
	}
	reader := exec.Command("go", "run", ".", "../../../../deploy/docker/compose.yaml")
	reader.Dir, reader.Env = "reader", append(os.Environ(), "GOFLAGS=")
	var faults bytes.Buffer
	reader.Stderr = &faults
	out, err := reader.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &faults)
	}
	var got struct {
		Services map[string]struct {
			Image       string
			Command     []string
			Environment map[string]string
		}
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	want := readProject(t).Services
	if len(got.Services) != len(want) {
		t.Errorf("%d services, and not %d", len(got.Services), len(want))
	}
	for name, s := range got.Services {
		if w := want[name]; s.Image != w.Image || !slices.Equal(s.Command, w.Command) || !maps.Equal(s.Environment, w.Environment) {
			t.Errorf("%s is %+v, and not %+v", name, s, w)
		}
	}
}

// Two builds at different places, of which one has no cache, give the same files, and a root
// directory with nothing else serves: as another user than root, and read-only.
func TestImage(t *testing.T) {
	if !kit.Soak() {
		return // everything is compiled twice
	}
	if os.Getuid() != 0 {
		t.Fatal("only root can change the root directory")
	}
	var images []string
	for _, cache := range []string{os.Getenv("GOCACHE"), t.TempDir()} {
		images = append(images, buildImage(t, cache))
	}
	digest := func(image string) string {
		return run(t, []string{"PATH=" + os.Getenv("PATH")}, "sh", "-c", `cd "$0" && tar --sort=name --numeric-owner -c . | sha256sum`, image)
	}
	if a, b := digest(images[0]), digest(images[1]); a != b {
		t.Errorf("two builds differ: %s%s", a, b)
	} else {
		t.Logf("summary: two builds of the image's files are %s", a)
	}
	out := run(t, nil, "unshare", "--mount", "sh", "-euc", cleanRoot, images[0])
	if !strings.Contains(out, `"status":"ready"`) || !strings.Contains(out, `"kty":"EC"`) || !strings.Contains(out, "uid 65532") {
		t.Errorf("the replica says %s", out)
	}
}

// buildImage runs the commands of the Dockerfile in a copy of what is sent to the engine, and
// returns the directory of the image's files.
func buildImage(t *testing.T, cache string) string {
	t.Helper()
	dir := t.TempDir()
	source, image := filepath.Join(dir, "source"), filepath.Join(dir, "image")
	copyTree := exec.Command("sh", "-euc", `mkdir "$0"; git ls-files -z cmd internal verify deploy Makefile go.mod go.sum .ci | xargs -0 cp --parents -t "$0"`, source)
	copyTree.Dir = root
	if out, err := copyTree.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	build := exec.Command("sh", "-euc", `make build sbom VERSION=v1.2.3 && deploy/docker/root.sh "$0" "$0/data"`, image)
	build.Dir, build.Env = source, append(os.Environ(), "SOURCE_DATE_EPOCH=1796000000", "GOFLAGS=")
	if cache != "" {
		build.Env = append(build.Env, "GOCACHE="+cache)
	}
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return image
}

// cleanRoot serves from a root directory, $0, which it mounts read-only, but for /data. What
// watches the replica is outside. The port is the replica's to choose, and its log says which.
const cleanRoot = `
image=$0
chown 65532:65532 "$image/data"
mount --bind "$image" "$image"
mount --bind "$image/data" "$image/data"
mount -o remount,ro,bind "$image"
log=$(mktemp)
trap 'cat "$log"; rm -f "$log"' EXIT
env -i WATCHWORD_SERVER_ADDRESS=127.0.0.1:0 WATCHWORD_SERVER_PUBLIC_URL=http://localhost:8080 \
	"$(command -v chroot)" --userspec=65532:65532 "$image" /watchword serve >"$log" 2>&1 &
pid=$!
trap 'kill $pid 2>/dev/null || true; wait $pid || true; cat "$log"; rm -f "$log"' EXIT
n=0
while ! address=$(sed -n 's/.*"msg":"ready","address":"\([^"]*\)".*/\1/p' "$log" | grep .); do
	n=$((n+1)); [ $n -lt 600 ]; kill -0 $pid; sleep 0.1
done
awk '/^Uid:/ { print "uid " $2 }' /proc/$pid/status
curl -sS "http://$address/readyz" "http://$address/api/pkeys"
kill -TERM $pid
wait $pid
trap 'cat "$log"; rm -f "$log"' EXIT
`
