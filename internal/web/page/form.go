package page

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/watchword-auth/watchword/internal/problem"
)

// MaxForm bounds the body of a form, in bytes.
const MaxForm = 64 << 10

var (
	errForm      = problem.New(problem.Malformed, "malformed_form", "the form cannot be read")
	errFormLarge = problem.New(problem.TooLarge, "form_too_large", "the form is too large")
	errFormSlow  = problem.New(problem.TimedOut, "request_timeout", "the form did not come in time")
)

// A body is what a request carries.
type body int

const (
	noBody body = iota
	formBody
	jsonBody
	filesBody
)

var contentType = map[body]string{
	formBody: "application/x-www-form-urlencoded", jsonBody: "application/json", filesBody: "multipart/form-data",
}

// readBody reads the form that was sent, or the query. JSON is read, for the handler to look at;
// files are left to it.
func (v *Visit) readBody() (err error) {
	r := v.Request
	if v.route.body == noBody {
		v.form, err = fields(r.URL.RawQuery)
		return err
	}
	if r.ContentLength > v.route.most {
		return errFormLarge
	}
	r.Body = http.MaxBytesReader(v.Writer, r.Body, v.route.most)
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != contentType[v.route.body] {
		return errForm
	}
	if v.route.body == filesBody {
		return nil
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return formError(err)
	}
	if v.route.body == jsonBody {
		r.Body = io.NopCloser(bytes.NewReader(text))
		return nil
	}
	v.form, err = fields(string(text))
	return err
}

// formError says of an error of a request's body whose fault it is.
func formError(err error) error {
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return errFormLarge
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errFormSlow.Because(err)
	}
	return errForm.Because(err)
}

// fields reads the fields of a form or of a query. It refuses what is not UTF-8, the character
// 0, which databases refuse, and a second field of a name, unless the name ends in "[]".
func fields(text string) (url.Values, error) {
	form, err := url.ParseQuery(text)
	if err != nil {
		return nil, errForm.Because(err)
	}
	for name, values := range form {
		if len(values) > 1 && !strings.HasSuffix(name, "[]") || !isText(name) {
			return nil, errForm
		}
		for _, value := range values {
			if !isText(value) {
				return nil, errForm
			}
		}
	}
	return form, nil
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// Form returns the fields of the form that was sent; of Get: those of the query.
func (v *Visit) Form() url.Values { return v.form }

// Field returns a field of the form without the spaces around it; empty: it has none. Passwords
// are read by Form, as they are.
func (v *Visit) Field(name string) string { return strings.TrimSpace(v.form.Get(name)) }

// Fields returns the values of fields whose name ends in "[]": only those may come several
// times.
func (v *Visit) Fields(name string) []string { return v.form[name] }

// Parts returns the parts of a form with files (PostLarge), which are read one after the other
// as they come. What a part has in it, nobody has looked at.
func (v *Visit) Parts() (*multipart.Reader, error) {
	m, err := v.Request.MultipartReader()
	if err != nil {
		return nil, errForm.Because(err)
	}
	return m, nil
}

// FormError says of an error from reading Parts whose fault it is.
func (v *Visit) FormError(err error) error { return formError(err) }
