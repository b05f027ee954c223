package page

import (
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
	"golang.org/x/text/language"
)

//go:embed lang/*.yaml
var langFiles embed.FS

// A catalogue has the texts of one language.
type catalogue struct {
	tag   language.Tag
	texts map[string]string
}

// languages has all catalogues, English first, which is taken where no language fits. They are
// read when the first page is shown: that takes 20 ms, which commands and starts need not wait for.
var languages = sync.OnceValues(func() ([]*catalogue, language.Matcher) {
	all, err := readCatalogues(langFiles)
	if err != nil {
		panic(err) // the files are part of the program, and a test reads them
	}
	tags := make([]language.Tag, len(all))
	for i, c := range all {
		tags[i] = c.tag
	}
	return all, language.NewMatcher(tags)
})

// readCatalogues reads the files lang/<tag>.yaml, whose names are tags of BCP 47.
func readCatalogues(files fs.FS) ([]*catalogue, error) {
	names, err := fs.Glob(files, "lang/*.yaml")
	if err != nil {
		return nil, err
	}
	var all []*catalogue
	for _, name := range names {
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		tag, err := language.Parse(strings.TrimSuffix(path.Base(name), ".yaml"))
		if err != nil {
			return nil, fmt.Errorf("page: %s: %w", name, err)
		}
		c := &catalogue{tag: tag}
		if err := yaml.Unmarshal(b, &c.texts); err != nil {
			return nil, fmt.Errorf("page: %s: %w", name, err)
		}
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b *catalogue) int {
		return cmp.Compare(rank(a.tag), rank(b.tag))
	})
	return all, nil
}

func rank(tag language.Tag) int {
	if tag == language.English {
		return 0
	}
	return 1
}

// maxLocales bounds what is read of a list of languages, in bytes.
const maxLocales = 256

// locales is the parameter that says which languages the user prefers, the first one most
// (OpenID Connect Core §3.1.2.1).
const locales = "ui_locales"

// language returns the language of the answer.
func (v *Visit) language() *catalogue {
	path := v.Request.URL.Path
	if slices.ContainsFunc(v.kit.english, func(root string) bool { return path == root || strings.HasPrefix(path, root+"/") }) {
		catalogues, _ := languages()
		return catalogues[0]
	}
	return v.preferred()
}

// preferred returns the language that the visitor wants: by ui_locales of this page or of a
// former one, else by Accept-Language.
func (v *Visit) preferred() *catalogue {
	asked := v.Request.URL.Query().Get(locales)
	if c, ok := match(strings.ReplaceAll(asked, " ", ",")); ok {
		if v.Cookie(languageCookie) != c.tag.String() {
			v.SetCookie(languageCookie, c.tag.String(), 0)
		}
		return c
	}
	if c, ok := match(v.Cookie(languageCookie)); ok {
		return c
	}
	c, _ := match(v.Request.Header.Get("Accept-Language"))
	return c
}

// match returns the catalogue that fits a list of languages best (RFC 9110 §12.5.4), and
// whether one fits at all.
func match(list string) (*catalogue, bool) {
	catalogues, matcher := languages()
	if list == "" || len(list) > maxLocales {
		return catalogues[0], false
	}
	tags, _, err := language.ParseAcceptLanguage(list)
	if err != nil || len(tags) == 0 {
		return catalogues[0], false
	}
	_, i, confidence := matcher.Match(tags...)
	return catalogues[i], confidence != language.No
}

func (c *catalogue) lookup(key string) (string, bool) {
	text, ok := c.texts[key]
	return text, ok
}

// text returns a text with its arguments, {name}, filled in at once: what an argument says is
// not looked through again.
func (c *catalogue) text(key string, args ...any) string {
	text, ok := c.texts[key]
	if !ok {
		return key // a test holds that there is none
	}
	if len(args) == 0 {
		return text
	}
	pairs := make([]string, 0, len(args))
	for i := 0; i+1 < len(args); i += 2 {
		pairs = append(pairs, "{"+fmt.Sprint(args[i])+"}", fmt.Sprint(args[i+1]))
	}
	return strings.NewReplacer(pairs...).Replace(text)
}
