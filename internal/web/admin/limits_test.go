package admin_test

import (
	"fmt"
	"net/http"
	"regexp"
	"testing"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/login"
)

func TestLimitsPage(t *testing.T) {
	o := newBureau(t)
	ada := o.user("ada")
	o.user("root", directory.Superuser)
	d := o.desk("root")
	d.get("/admin/limits").says(http.StatusOK, "Nobody waits", "so many attempts at it have failed",
		"1,000 in 60 seconds", "not bounded", "After 3 failed attempts at one account, its address waits 60 seconds", "up to 60 minutes", "After 50 failed attempts")

	o.begin("ada", true, "192.0.2.3", firefox) // known from there
	for range 3 {
		o.fail("ada", "198.51.100.9")
		o.fail("nobody", "2001:db8:1::7")
	}
	o.fail("nobody2", "2001:db8:1::8")
	list := d.get("/admin/limits").says(http.StatusOK, ">ada</a>", "3 failed attempts from 198.51.100.9", "waits", "until",
		"One more name waits that no user has", "2001:db8:1::/64", "4 failed attempts at any accounts", "/admin/limits/account/lift?user="+ada.ID)
	path := regexp.MustCompile(`hx-get="([^"]*)"`).FindStringSubmatch(list.Body.String())[1]
	d.htmx = true
	d.get(path).says(http.StatusOK, ">ada</a>").saysNot("<html", "<form", "Rates")
	d.htmx = false

	d.get("/admin/limits/account?user=Ada").says(http.StatusOK, "some attempts wait", "192.0.2.3", "known", "198.51.100.9", "stranger",
		"3 failed attempts from all addresses together")
	d.get("/admin/limits/address?address=2001:db8:1::7").says(http.StatusOK, "2001:db8:1::/64", "Nobody has signed in from there")
	d.get("/admin/limits/account?user=who").says(http.StatusNotFound, "There is no such user", `value="who"`)
	d.get("/admin/limits/address?address=home").says(http.StatusUnprocessableEntity, "neither an IP address", `value="home"`)
	d.get("/admin/limits?after=*").says(http.StatusUnprocessableEntity)

	// Asking lifts nothing, and who may look cannot lift.
	o.user("reader", directory.LimitsRead)
	r := o.desk("reader")
	r.get("/admin/limits").says(http.StatusOK, ">ada</a>").saysNot("/lift")
	r.post("/admin/limits/account/lift", "user", ada.ID).says(http.StatusForbidden)
	d.get("/admin/limits/account/lift?user=ada").says(http.StatusOK, "counted for ada, on all replicas?", "stay known")
	d.get("/admin/limits/address/lift?address=2001:db8:1::7").says(http.StatusOK, "counted from 2001:db8:1::/64, on all replicas?")
	d.get("/admin/limits").says(http.StatusOK, ">ada</a>", "2001:db8:1::/64")

	d.then(d.post("/admin/limits/account/lift", "user", ada.ID).leads("/admin/limits")).says(http.StatusOK, "are lifted").saysNot(">ada</a>")
	if _, err := o.login.Begin(t.Context(), login.Credential{Username: "ada", Password: secret}, "", login.Client{Address: "198.51.100.9"}); err != nil {
		t.Errorf("ada still waits: %v", err)
	}
	d.then(d.post("/admin/limits/address/lift", "address", "2001:db8:1::/64").leads("/admin/limits")).says(http.StatusOK, "are lifted").saysNot("address=2001")
	d.get("/admin/audit?action=limit.lift").says(http.StatusOK, "Limits lifted", "of an account", "of an address", ">ada</a>")
}

func TestLimitsArePaged(t *testing.T) {
	o := newBureau(t)
	o.user("root", directory.Superuser)
	for i := range 28 {
		for range 4 {
			o.fail(fmt.Sprintf("nobody%d", i), fmt.Sprintf("198.51.100.%d", i))
		}
	}
	d := o.desk("root")
	first := d.get("/admin/limits").says(http.StatusOK, "25 more names wait")
	next := regexp.MustCompile(`/admin/limits\?after=[^"]*`).FindAllString(first.Body.String(), -1)
	d.get(next[len(next)-1]).says(http.StatusOK, "3 more names wait", "First page").saysNot(`rel="next"`)
}
