// Transit serves the transit engine of HashiCorp Vault, for tests of Watchword's remote signer: the
// engine itself, of the last Vault under a free licence (MPL 2.0), from which OpenBao's comes,
// with its storage in memory. Requests become calls of the engine, and what it gives becomes an
// answer, by Vault's own functions. Of the rest of Vault there is only what a client meets: the
// token, and that Vault may be sealed.
//
// It is a module of its own, so that Watchword does not depend on Vault. The whole server would take
// minutes to compile, and the engine takes half of one.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

func main() {
	log.SetFlags(0)
	config := logical.TestBackendConfig()
	config.StorageView = &logical.InmemStorage{}
	engine, err := transit.Backend(context.Background(), config)
	if err != nil {
		log.Fatal(err)
	}
	// The library that is published for this Vault refuses this path as it is declared.
	engine.Paths = slices.DeleteFunc(engine.Paths, func(p *framework.Path) bool { return p.Pattern == "cache-config" })
	if err := engine.Setup(context.Background(), config); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", os.Getenv("TRANSIT_ADDRESS"))
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: &front{engine: engine, storage: config.StorageView, token: os.Getenv("TRANSIT_TOKEN")}, ReadHeaderTimeout: 10 * time.Second}
	fmt.Println(listener.Addr()) // the test waits for it
	log.Fatal(server.Serve(listener))
}

// A front is what stands before the engine.
type front struct {
	engine  logical.Backend
	storage logical.Storage
	token   string
	sealed  atomic.Bool
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	if path == "sys/unseal" {
		f.sealed.Store(false)
		return
	}
	switch rest, mounted := strings.CutPrefix(path, "transit/"); {
	case f.sealed.Load():
		logical.RespondError(w, http.StatusServiceUnavailable, consts.ErrSealed)
	case r.Header.Get(consts.AuthHeaderName) != f.token:
		logical.RespondError(w, http.StatusForbidden, logical.ErrPermissionDenied)
	case path == "sys/seal":
		f.sealed.Store(true)
	case !mounted:
		logical.RespondError(w, http.StatusNotFound, fmt.Errorf("no handler for route %q. route entry not found.", path)) //nolint:staticcheck // as Vault says it
	default:
		f.call(w, r, rest)
	}
}

// call has the engine do what the request asks for.
func (f *front) call(w http.ResponseWriter, r *http.Request, path string) {
	request := &logical.Request{
		ID: "test", Operation: logical.ReadOperation, Path: path, Storage: f.storage, MountPoint: "transit/", ClientToken: f.token,
	}
	switch r.Method {
	case http.MethodPost, http.MethodPut:
		request.Operation = logical.UpdateOperation
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
		d.UseNumber()
		if err := d.Decode(&request.Data); err != nil {
			logical.RespondError(w, http.StatusBadRequest, fmt.Errorf("error parsing JSON"))
			return
		}
	case http.MethodDelete:
		request.Operation = logical.DeleteOperation
	}
	response, err := f.engine.HandleRequest(r.Context(), request)
	if status, err := logical.RespondErrorCommon(request, response, err); status != 0 || err != nil {
		logical.RespondError(w, status, err)
		return
	}
	if response == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	answer := logical.LogicalResponseToHTTPResponse(response)
	answer.RequestID = request.ID
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}
