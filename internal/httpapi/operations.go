package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// Operations registers the endpoints that are described by their Go types, and
// keeps the description of all. Hot paths have handlers of their own and only
// describe themselves here.
type Operations struct {
	api     huma.API
	login   *login.Service
	proxies Proxies
}

// NewOperations makes the register on a mux.
func NewOperations(mux *http.ServeMux, version string, l *login.Service, p Proxies) *Operations {
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Watchword", Version: version,
				Description: "An authentication and token service that many equal replicas run as one.",
				License:     &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"bearer": {Type: "http", Scheme: "bearer", BearerFormat: "at+jwt", Description: "the access token of POST /api/login"},
				},
			},
		},
		Formats: map[string]huma.Format{
			"application/json": strictFormat, "json": strictFormat,
			"application/x-www-form-urlencoded": strictFormat, // what curl says of -d
		},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{asProblem},
	}
	return &Operations{api: humago.New(mux, config), login: l, proxies: p}
}

// strictFormat reads JSON as strictly as every other endpoint does.
var strictFormat = huma.Format{
	Marshal: func(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) },
	Unmarshal: func(data []byte, v any) error {
		if err := wellFormed(data); err != nil {
			return err
		}
		return unmarshal(data, v)
	},
}

// asProblem gives the errors that huma makes itself (a body that does not fit its
// schema) the form of all others. The values that the client sent are left out:
// one may be a password.
func asProblem(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	body := Problem{Type: "about:blank", Title: http.StatusText(m.Status), Status: m.Status, Detail: m.Detail, Code: "invalid_request"}
	switch m.Status {
	case http.StatusBadRequest:
		body.Code = errMalformed.Code
	case http.StatusRequestTimeout:
		body.Code, body.Detail = errTooSlow.Code, errTooSlow.Detail
	case http.StatusRequestEntityTooLarge:
		body.Code, body.Detail = errTooLarge.Code, errTooLarge.Detail
	case http.StatusUnsupportedMediaType:
		body.Code, body.Detail = "unsupported_media_type", "the body must be of type application/json"
	}
	for _, d := range m.Errors {
		text := d.Message
		if d.Location != "" {
			text = d.Location + ": " + text
		}
		body.Errors = append(body.Errors, text)
	}
	return body, nil
}

// A caller is who makes a request: the holder of its verified token.
type caller struct {
	token  *accesstoken.Token
	client login.Client
}

func (c caller) actor() directory.Actor {
	return directory.Actor{ID: c.token.Subject, Address: c.client.Address}
}

type callerKey struct{}

// register adds an endpoint for holders of a token.
func register[I, O any](o *Operations, op huma.Operation, f func(context.Context, caller, *I) (*O, error)) {
	op.MaxBodyBytes = MaxBody + 1 // huma refuses a body of this size, too
	op.Security = []map[string][]string{{"bearer": {}}}
	op.Middlewares = huma.Middlewares{o.authenticate}
	// 422 is for an unknown parameter, too.
	op.Errors = append(op.Errors, slices.Concat(ourErrors, bearerErrors, []int{http.StatusUnprocessableEntity})...)
	if op.Method == http.MethodPost || op.Method == http.MethodPatch { // it has a body
		op.Middlewares = append(op.Middlewares, refuseTooLarge)
		op.Errors = append(append(op.Errors, bodyErrors...), http.StatusUnsupportedMediaType)
	}
	if strings.Contains(op.Path, "{") {
		op.Errors = append(op.Errors, http.StatusNotFound)
	}
	huma.Register(o.api, op, func(ctx context.Context, in *I) (*O, error) {
		who := ctx.Value(callerKey{}).(*request)
		out, err := f(ctx, who.caller, in)
		if err != nil {
			note(who.w, err)
			body, header := answer(err)
			return nil, &failure{body, header}
		}
		return out, nil
	})
}

// request travels from the middleware to the handler.
type request struct {
	caller
	w http.ResponseWriter
}

func (o *Operations) authenticate(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	token, err := authenticate(o.login, r)
	if err != nil {
		WriteProblem(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	next(huma.WithValue(ctx, callerKey{}, &request{caller{token, o.proxies.client(r)}, w}))
}

// refuseTooLarge is what readJSON does with a body that says how large it is.
func refuseTooLarge(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	if r.ContentLength > MaxBody {
		WriteProblem(w, r, errTooLarge)
		return
	}
	next(ctx)
}

// A failure is an error as huma wants it: body, status and headers.
type failure struct {
	Problem
	header http.Header
}

func (f *failure) Error() string               { return f.Code }
func (f *failure) GetStatus() int              { return f.Status }
func (f *failure) GetHeaders() http.Header     { return f.header }
func (f *failure) ContentType(_ string) string { return "application/problem+json" }

// The errors that operations have in common.
var (
	ourErrors    = []int{http.StatusInternalServerError, http.StatusServiceUnavailable} // 503: also while the node starts
	bearerErrors = []int{http.StatusBadRequest, http.StatusUnauthorized}                // of authenticate
	bodyErrors   = []int{http.StatusBadRequest, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity}
)

// describe adds an endpoint that has a handler of its own to the description.
// in and out are values of the bodies' types, nil where there is none. To the
// answers that it returns others may be added.
func (o *Operations) describe(op huma.Operation, in any, status int, out any, contentType string) map[string]*huma.Response {
	schemas := o.api.OpenAPI().Components.Schemas
	if in != nil {
		op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/json": {Schema: schemas.Schema(reflect.TypeOf(in), true, "")},
		}}
		op.Errors = append(op.Errors, bodyErrors...)
	}
	op.Responses = map[string]*huma.Response{fmt.Sprint(status): o.response(status, out, contentType)}
	o.api.OpenAPI().AddOperation(&op)
	return op.Responses
}

// response describes one answer; out and contentType as for describe.
func (o *Operations) response(status int, out any, contentType string) *huma.Response {
	r := &huma.Response{Description: http.StatusText(status)}
	if contentType != "" {
		media := &huma.MediaType{}
		if out != nil {
			media.Schema = o.api.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(out), true, "")
		}
		r.Content = map[string]*huma.MediaType{contentType: media}
	}
	return r
}

// describeErrors adds the errors that an operation answers. Those that huma
// describes by its own type are described by ours, which is what is sent.
func describeErrors(op *huma.Operation) {
	for _, status := range op.Errors {
		code := fmt.Sprint(status)
		if op.Responses[code] == nil {
			op.Responses[code] = &huma.Response{Description: http.StatusText(status)}
		}
		if op.Responses[code].Content == nil {
			op.Responses[code].Content = map[string]*huma.MediaType{}
		}
		op.Responses[code].Content["application/problem+json"] = &huma.MediaType{Schema: &huma.Schema{Ref: "#/components/schemas/Problem"}}
	}
	for code, name := range errorHeaders {
		if response := op.Responses[code]; response != nil {
			response.Headers = map[string]*huma.Header{name: {Schema: &huma.Schema{Type: "string"}}}
		}
	}
}

// errorHeaders come with every error of the status.
var errorHeaders = map[string]string{"401": "WWW-Authenticate", "429": "Retry-After", "503": "Retry-After"}

// document renders the description.
func (o *Operations) document() ([]byte, error) {
	doc := o.api.OpenAPI()
	schemas := doc.Components.Schemas
	schemas.Schema(reflect.TypeFor[Problem](), true, "")
	for _, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Head, item.Post, item.Put, item.Patch, item.Delete, item.Options, item.Trace} {
			if op != nil {
				describeErrors(op)
			}
		}
	}
	delete(schemas.Map(), "ErrorModel")
	delete(schemas.Map(), "ErrorDetail")
	return json.MarshalIndent(doc, "", "  ")
}
