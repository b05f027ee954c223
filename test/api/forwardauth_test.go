package api

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// identityBytes is the bound of docs/api.md, for which proxies make room.
const identityBytes = 20 << 10

// identity returns the X-Auth-* headers of an answer, and their bytes as they are sent.
func identity(t *testing.T, h http.Header) (headers http.Header, size int) {
	t.Helper()
	headers = http.Header{}
	for name, values := range h {
		if strings.HasPrefix(name, "X-Auth-") {
			if len(values) != 1 {
				t.Errorf("%s is there %d times", name, len(values))
			}
			headers[name] = values
			size += len(name + ": " + values[0] + "\r\n")
		}
	}
	return headers, size
}

// All that a proxy is to pass on about a user has a bound, and nothing is said twice.
func TestForwardAuthHeadersHaveABound(t *testing.T) {
	w := replica.New(t, nil)
	people := w.Parts().Directory

	// As many bytes as there may be, each of which becomes three in a header.
	var log, values []string
	for size := len(`{"log":""}`); size < directory.MaxClaims; size += len(values[len(values)-1]) + 1 {
		room := min(100, directory.MaxClaims-size-1) / len("語") * len("語")
		if room < 9 {
			break
		}
		values = append(values, fmt.Sprintf("%03d", len(values))+strings.Repeat("語", room/3-1))
		log = append(log, "log="+values[len(values)-1])
	}
	kit.AddUser(t, people, "large", log...)
	last, first, name := strings.Repeat("名", 128), strings.Repeat("姓", 128), strings.Repeat("人", 64)
	if _, err := people.UpdateUser(t.Context(), directory.System(), "large", directory.UserPatch{Username: &name, FirstName: &first, LastName: &last}); err != nil {
		t.Fatal(err)
	}
	headers, size := identity(t, w.Want(w.Do("GET", "/api/verify", w.Login(name).AccessToken, nil), 200, "").Header)
	if len(headers) != 9 || size > identityBytes || size < identityBytes/2 {
		t.Errorf("%d headers, %d bytes", len(headers), size)
	}
	if got, err := url.PathUnescape(headers.Get("X-Auth-Username")); got != name || err != nil {
		t.Errorf("the username is %q", got)
	}
	if got, err := url.PathUnescape(headers.Get("X-Auth-Claim-Log")); got != strings.Join(values, ",") || err != nil {
		t.Errorf("the claim has %d bytes: %v", len(got), err)
	}
}

// A claim has one header, and none that could be taken for the username's.
func TestForwardAuthSaysNothingTwice(t *testing.T) {
	w := replica.New(t, nil)
	w.User("tester", "ship=acc", "preferred-username=root", "preferred.username=root")
	headers, _ := identity(t, w.Want(w.Do("GET", "/api/verify", w.Login("tester").AccessToken, nil), 200, "").Header)
	for _, name := range []string{"Subject", "Session", "Expires", "Username", "Name", "Email", "Claim-Ship"} {
		if headers.Get("X-Auth-"+name) == "" {
			t.Errorf("X-Auth-%s is not there", name)
		}
		delete(headers, "X-Auth-"+name)
	}
	delete(headers, "X-Auth-Time") // TestForwardAuthSaysHowTheUserAuthenticated
	delete(headers, "X-Auth-Methods")
	if len(headers) > 0 {
		t.Errorf("there are also %v", headers)
	}
}
