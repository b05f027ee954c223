package httpkit

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// An API is a mux whose routes are described in OpenAPI. Every route is added by Register,
// if its Go types describe it, or by Handle, if it has an http.HandlerFunc of its own, as
// hot paths have.
type API struct {
	mux     *http.ServeMux
	huma    huma.API
	login   *login.Service
	proxies Proxies
	budget  *Budget
}

// NewAPI makes an API on a mux. Access tokens are verified by l, and b bounds the requests
// of the routes that need one, or that have a body.
func NewAPI(mux *http.ServeMux, version string, l *login.Service, p Proxies, b *Budget) *API {
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
			"application/x-www-form-urlencoded": strictFormat, // the type that curl -d sends
		},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{asProblem},
	}
	return &API{mux: mux, huma: humago.New(mux, config), login: l, proxies: p, budget: b}
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

// asProblem gives the errors that huma makes itself, as for a body that does not fit its
// schema, the form of all others. It leaves out the values that the client sent: one may be
// a password.
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

// A Caller is the holder of a request's verified token.
type Caller struct {
	Token  *accesstoken.Token
	Client login.Client
}

// Actor returns the caller as the directory knows them.
func (c Caller) Actor() directory.Actor {
	return directory.Holder(c.Token, c.Client.Address)
}

type callerKey struct{}

// Administration says of an operation that it is one of administration: its requests are
// counted in the class limit.Admin.
func Administration(op huma.Operation) huma.Operation { return ofClass(op, limit.Admin) }

// classOf is the name of an operation's class in its metadata.
const classOf = "class"

func ofClass(op huma.Operation, class limit.Class) huma.Operation {
	op.Metadata = map[string]any{classOf: class}
	return op
}

// Register adds a route for holders of a token, whose input and output are described by
// the types I and O. Its requests are counted in the class limit.API, but for Administration.
func Register[I, O any](a *API, op huma.Operation, f func(context.Context, Caller, *I) (*O, error)) {
	class, ok := op.Metadata[classOf].(limit.Class)
	if !ok {
		class = limit.API
		op = ofClass(op, class)
	}
	op.MaxBodyBytes = MaxBody + 1 // huma refuses a body of this size, too
	op.Security = []map[string][]string{{"bearer": {}}}
	op.Middlewares = huma.Middlewares{a.guarded(class), a.authenticate}
	// 422 is for an unknown parameter, too.
	op.Errors = append(op.Errors, slices.Concat(commonErrors, bearerErrors, []int{http.StatusUnprocessableEntity, http.StatusTooManyRequests})...)
	if _, body := reflect.TypeFor[I]().FieldByName("Body"); body {
		op.Middlewares = append(op.Middlewares, refuseTooLarge)
		op.Errors = append(append(op.Errors, bodyErrors...), http.StatusUnsupportedMediaType)
	}
	if strings.Contains(op.Path, "{id}") { // of something that may not be there
		op.Errors = append(op.Errors, http.StatusNotFound)
	}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		r := ctx.Value(callerKey{}).(*request)
		out, err := f(ctx, r.Caller, in)
		if err != nil {
			NoteCause(r.w, err)
			body, header := answer(err)
			return nil, &failure{body, header}
		}
		return out, nil
	})
}

// request travels from the middleware to the handler.
type request struct {
	Caller
	w http.ResponseWriter
}

// guarded is what Handle puts before a handler, for routes of huma.
func (a *API) guarded(class limit.Class) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(ctx)
		a.reporting(a.counted(class, a.bounded(func(_ http.ResponseWriter, r *http.Request) {
			next(humago.NewContext(ctx.Operation(), r, w))
		})))(w, r)
	}
}

func (a *API) authenticate(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	token, err := Authenticate(a.login, r)
	if err != nil {
		WriteProblem(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	next(huma.WithValue(ctx, callerKey{}, &request{Caller{token, a.proxies.Client(r)}, w}))
}

// refuseTooLarge is what ReadJSON does with a body that says how large it is.
func refuseTooLarge(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	if r.ContentLength > MaxBody {
		WriteProblem(w, errTooLarge)
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

// The errors that routes have in common.
var (
	commonErrors = []int{http.StatusInternalServerError, http.StatusServiceUnavailable} // 503: also while the replica starts
	bearerErrors = []int{http.StatusBadRequest, http.StatusUnauthorized}                // of Authenticate
	bodyErrors   = []int{http.StatusBadRequest, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity}
)

// A Route describes a route with a handler of its own.
type Route struct {
	// Method is empty for a route that takes every method.
	Method, Path string
	// Pattern is what the mux matches instead of Path, where its patterns cannot say as much.
	Pattern          string
	ID, Tag, Summary string
	Bearer           bool // it needs an access token
	// Class is the one in which the credential that it takes is counted. Access tokens are
	// counted here, in limit.API if nothing is said; all other credentials by the use case.
	// Empty: it takes none.
	Class              limit.Class
	Optional           bool  // neither the token nor the body has to be there
	OwnBounds          bool  // it reads a token or a body, and the Budget is not for it
	AnswersDuringStart bool  // it never answers 503 starting
	Errors             []int // besides those that all such routes have
	Parameters         []*huma.Param
	Body               any // a value of the type of the request's body; nil: there is none
	Status             int
	Answer             any    // a value of the type of the answer's body; nil: not described
	Type               string // of the answer; empty: it has no body
	OtherAnswers       []Other
}

// Other is another successful answer of a route, or one of its errors that is no problem
// document.
type Other struct {
	Status int
	Answer any
	Type   string
}

// Handle adds a route with a handler of its own.
func (a *API) Handle(r Route, h http.HandlerFunc) {
	if r.Bearer && r.Class == "" {
		r.Class = limit.API
	}
	bounded := (r.Bearer || r.Body != nil) && !r.OwnBounds
	if bounded {
		h = a.bounded(h)
	}
	if r.Bearer {
		h = a.counted(r.Class, h)
	}
	switch {
	case r.Class != "" && r.Body != nil:
		h = a.reporting(h)
	case r.Class != "":
		h = a.reportingIf(r.Class, h)
	}
	if bounded || r.Class != "" {
		r.Errors = append(slices.Clone(r.Errors), http.StatusTooManyRequests)
	}
	if r.Method == "" {
		a.mux.HandleFunc(r.Path, h)
		for _, method := range openAPIMethods {
			one := r
			one.Method = method
			if method != http.MethodGet {
				one.ID += "-" + strings.ToLower(method)
			}
			a.describe(one)
		}
		return
	}
	a.mux.HandleFunc(r.Method+" "+cmp.Or(r.Pattern, r.Path), h)
	a.describe(r)
}

// openAPIMethods are the methods that OpenAPI 3.1 can describe.
var openAPIMethods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace,
}

func (a *API) describe(r Route) {
	path := strings.TrimSuffix(r.Path, "{$}") // says to the mux that nothing follows
	op := &huma.Operation{OperationID: r.ID, Method: r.Method, Path: path, Tags: []string{r.Tag}, Summary: r.Summary, Parameters: r.Parameters}
	if r.Class != "" {
		*op = ofClass(*op, r.Class)
	}
	op.Errors = slices.Concat(commonErrors, r.Errors)
	if r.AnswersDuringStart {
		op.Errors = append([]int{http.StatusInternalServerError}, r.Errors...)
	}
	if r.Bearer {
		op.Security = []map[string][]string{{"bearer": {}}}
		if r.Optional {
			op.Security = append(op.Security, map[string][]string{}) // OpenAPI 3.1 §4.8.30
		}
		op.Errors = append(op.Errors, bearerErrors...)
	}
	if r.Body != nil {
		op.RequestBody = &huma.RequestBody{Required: !r.Optional, Content: map[string]*huma.MediaType{
			"application/json": {Schema: a.schema(r.Body)},
		}}
		op.Errors = append(op.Errors, bodyErrors...)
	}
	op.Responses = map[string]*huma.Response{}
	for _, o := range append([]Other{{r.Status, r.Answer, r.Type}}, r.OtherAnswers...) {
		code := fmt.Sprint(o.Status)
		response := op.Responses[code]
		if response == nil {
			response = &huma.Response{Description: http.StatusText(o.Status)}
			op.Responses[code] = response
		}
		if o.Type == "" {
			continue
		}
		media := &huma.MediaType{}
		if o.Answer != nil {
			media.Schema = a.schema(o.Answer)
		}
		if response.Content == nil {
			response.Content = map[string]*huma.MediaType{}
		}
		response.Content[o.Type] = media
	}
	a.huma.OpenAPI().AddOperation(op)
}

// schema returns the schema of a value's type. A schema that is given is taken as it is.
func (a *API) schema(v any) *huma.Schema {
	if s, ok := v.(*huma.Schema); ok {
		return s
	}
	return a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(v), true, "")
}

// describeAnswers adds the errors that an operation answers, and headers. The errors that
// huma describes by its own type are described by ours, which is what is sent.
func describeAnswers(op *huma.Operation) {
	for _, status := range op.Errors {
		code := fmt.Sprint(status)
		if op.Responses[code] == nil {
			op.Responses[code] = &huma.Response{Description: http.StatusText(status)}
		}
		if op.Responses[code].Content == nil {
			op.Responses[code].Content = map[string]*huma.MediaType{}
		}
		if m := op.Responses[code].Content["application/problem+json"]; m != nil && m.Schema.Ref != "#/components/schemas/ErrorModel" {
			continue // a problem with members of its own
		}
		op.Responses[code].Content["application/problem+json"] = &huma.MediaType{Schema: &huma.Schema{Ref: "#/components/schemas/Problem"}}
	}
	for code, name := range errorHeaders {
		if response := op.Responses[code]; response != nil {
			response.Headers = map[string]*huma.Header{name: {Schema: &huma.Schema{Type: "string"}}}
		}
	}
	if op.Metadata[classOf] == nil {
		return
	}
	for _, response := range op.Responses {
		if response.Headers == nil {
			response.Headers = map[string]*huma.Header{}
		}
		for name, text := range rateHeaders {
			response.Headers[name] = &huma.Header{Description: text, Schema: &huma.Schema{Type: "string"}}
		}
	}
}

// errorHeaders come with every error of the status.
var errorHeaders = map[string]string{"401": "WWW-Authenticate", "429": "Retry-After", "503": "Retry-After"}

// Document returns a function that renders the description of all routes when it is first
// called: most replicas are never asked for it, and their start need not wait for it.
func (a *API) Document() func() ([]byte, error) {
	doc := a.huma.OpenAPI()
	schemas := doc.Components.Schemas // requests read them, so nothing may change them later
	schemas.Schema(reflect.TypeFor[Problem](), true, "")
	delete(schemas.Map(), "ErrorModel")
	delete(schemas.Map(), "ErrorDetail")
	return sync.OnceValues(func() ([]byte, error) {
		for _, item := range doc.Paths {
			for _, op := range []*huma.Operation{item.Get, item.Head, item.Post, item.Put, item.Patch, item.Delete, item.Options, item.Trace} {
				if op != nil {
					describeAnswers(op)
				}
			}
		}
		return json.MarshalIndent(doc, "", "  ")
	})
}
