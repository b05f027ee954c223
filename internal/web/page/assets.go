package page

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strings"
	"sync"

	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/problem"
)

//go:embed assets/*.css assets/*.js assets/*.svg
var assetFiles embed.FS

// assets are the files that pages need, under names that change with what is in them, so that
// browsers and proxies keep them for good.
type assets struct {
	paths map[string]string // by the name of the file
	byURL map[string]*asset // by the name in the path
}

// An asset is one file.
type asset struct {
	mediaType string
	plain     []byte
	// gzipped returns nil where it is not smaller. It is made when it is first asked for.
	gzipped func() []byte
}

var mediaTypes = map[string]string{
	".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".svg": "image/svg+xml", ".png": "image/png", ".webp": "image/webp",
}

// The files that are made of the brand.
const (
	themeFile = "theme.css"
	logoFile  = "logo"
)

func newAssets(b Brand) (*assets, error) {
	a := &assets{map[string]string{}, map[string]*asset{}}
	names, err := fs.Glob(assetFiles, "assets/*")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		content, err := assetFiles.ReadFile(name)
		if err != nil {
			return nil, err
		}
		a.add(path.Base(name), content)
	}
	a.add(themeFile, b.themeCSS())
	if b.Logo == nil {
		a.paths[logoFile] = a.paths["mark.svg"]
		return a, nil
	}
	mediaType, err := CheckLogo(b.Logo)
	if err != nil {
		return nil, err
	}
	for ext, known := range mediaTypes {
		if known == mediaType {
			a.add(logoFile+ext, b.Logo)
			a.paths[logoFile] = a.paths[logoFile+ext]
		}
	}
	return a, nil
}

func (a *assets) add(name string, content []byte) {
	ext := path.Ext(name)
	mediaType, ok := mediaTypes[ext]
	if !ok {
		panic(fmt.Sprintf("page: asset %s: its type is not known", name))
	}
	sum := sha256.Sum256(content)
	served := strings.TrimSuffix(name, ext) + "-" + hex.EncodeToString(sum[:8]) + ext
	a.paths[name] = "/assets/" + served
	a.byURL[served] = &asset{mediaType, content, sync.OnceValue(func() []byte { return gzipped(content) })}
}

func gzipped(content []byte) []byte { return gzippedBy(gzip.BestCompression, content) }

// gzippedBy returns nil where the content would not become smaller.
func gzippedBy(level int, content []byte) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		panic(err) // of a level that there is not
	}
	_, _ = w.Write(content) // a Buffer takes everything
	_ = w.Close()
	if b.Len() >= len(content) {
		return nil
	}
	return b.Bytes()
}

// Asset returns the path of an asset, as of "page.css". A name that is not there is a mistake of
// the program.
func (k *Kit) Asset(name string) string {
	p, ok := k.assets.paths[name]
	if !ok {
		panic(fmt.Sprintf("page: there is no asset %q", name))
	}
	return p
}

// AddAsset adds a file that pages of another package need, as "signin.js". To be called
// before Mount.
func (k *Kit) AddAsset(name string, content []byte) { k.assets.add(name, content) }

// assetPolicy is what a logo may do that somebody opens as a page of its own: nothing but be
// drawn.
const assetPolicy = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"

// otherVersion finds the name of a file in the one under which it is served.
var otherVersion = regexp.MustCompile(`^([a-z.]+)-[0-9a-f]{16}(\.[a-z]+)$`)

var errNoAsset = problem.New(problem.NotFound, "no_such_path", "there is no such file")

func (a *assets) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	cache := "public, max-age=31536000, immutable"
	one, ok := a.byURL[r.PathValue("name")]
	if m := otherVersion.FindStringSubmatch(r.PathValue("name")); !ok && m != nil {
		// A page of another version asks for it, while replicas are updated: the file as it is
		// here is better than none.
		one, ok = a.byURL[path.Base(a.paths[m[1]+m[2]])]
		cache = "no-store"
	}
	if !ok {
		httpkit.WriteProblem(w, errNoAsset)
		return
	}
	h.Set("Content-Type", one.mediaType)
	h.Set("Content-Security-Policy", assetPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", cache)
	h.Set("Vary", "Accept-Encoding")
	content := one.plain
	if httpkit.AcceptsGzip(r.Header) {
		if smaller := one.gzipped(); smaller != nil {
			h.Set("Content-Encoding", "gzip")
			content = smaller
		}
	}
	h.Set("Content-Length", fmt.Sprint(len(content)))
	httpkit.WriteSlowly(w, http.StatusOK, content)
}
