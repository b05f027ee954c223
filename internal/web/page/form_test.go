package page

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
)

func TestFormsAreReadStrictly(t *testing.T) {
	k := newKit(t, nil)
	k.Post("/account/save", Anybody, func(v *Visit) error {
		return v.JSON(http.StatusOK, fmt.Sprintf("%q %q %q", v.Field("name"), v.Form().Get("name"), v.Fields("groups[]")))
	})
	k.Get("/account/list", Anybody, func(v *Visit) error { return v.JSON(http.StatusOK, v.Field("q")) })
	form := "application/x-www-form-urlencoded"
	for _, c := range []struct {
		mediaType, body string
		status          int
		says            string
	}{
		{form, "name=+a+b+&groups[]=x&groups%5B%5D=y", 200, `\"a b\" \" a b \" [\"x\" \"y\"]`},
		{form + "; charset=UTF-8", "name=a", 200, `\"a\"`},
		{form, "name=%C3%A4", 200, "ä"},
		{form, "other=a", 200, `\"\"`},
		{form, "name=a&name=a", 400, ""},
		{form, "name=a;b", 400, ""},
		{form, "name=%zz", 400, ""},
		{form, "name=%ff", 400, ""},
		{form, "name=%c0%af", 400, ""},
		{form, "name=a%00", 400, ""},
		{form, "%ff=a", 400, ""},
		{"multipart/form-data; boundary=x", "--x--", 400, ""},
		{"text/plain", "name=a", 400, ""},
		{"application/json", `{"name":"a"}`, 400, ""},
		{"", "name=a", 400, ""},
		{form, "name=" + strings.Repeat("a", MaxForm-5), 200, "aaa"},
		{form, "name=" + strings.Repeat("a", MaxForm-4), 413, ""},
	} {
		w := k.answer(call{method: "POST", path: "/account/save", body: c.body, header: map[string]string{"Content-Type": c.mediaType}})
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s %.40q: %d %.200s", c.mediaType, c.body, w.Code, w.Body)
		}
	}
	// The query is no part of a form.
	if w := k.answer(call{method: "POST", path: "/account/save?name=query", body: "a=b"}); strings.Contains(w.Body.String(), "query") {
		t.Errorf("the query: %s", w.Body)
	}
	for query, status := range map[string]int{"q=a": 200, "q=a&q=b": 400, "q=%ff": 400, "": 200} {
		if w := k.answer(call{path: "/account/list?" + query}); w.Code != status {
			t.Errorf("?%s: %d", query, w.Code)
		}
	}
}

// A body that does not say how large it is, is cut where it is too large.
func TestFormWithoutLength(t *testing.T) {
	k := newKit(t, nil)
	k.Post("/account/save", Anybody, hello)
	mux := http.NewServeMux()
	k.Mount(mux)
	r, err := http.NewRequest("POST", "http://localhost/account/save", io.MultiReader(strings.NewReader("a="), strings.NewReader(strings.Repeat("a", MaxForm))))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := record(mux, r)
	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("%d", w.Code)
	}
}

func TestFilesAreStreamed(t *testing.T) {
	k := newKit(t, nil)
	const most = 1 << 20
	k.PostLarge("/admin/import", Anybody, most, func(v *Visit) error {
		parts, err := v.Parts()
		if err != nil {
			return err
		}
		var got []string
		for {
			p, err := parts.NextPart()
			if errors.Is(err, io.EOF) {
				return v.JSON(http.StatusOK, got)
			}
			if err != nil {
				return v.FormError(err)
			}
			b, err := io.ReadAll(p)
			if err != nil {
				return v.FormError(err)
			}
			got = append(got, fmt.Sprint(p.FormName(), " ", len(b)))
		}
	})
	send := func(size int) (string, int) {
		var body bytes.Buffer
		m := multipart.NewWriter(&body)
		f, err := m.CreateFormFile("file", "users.csv")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.Write(bytes.Repeat([]byte("x"), size))
		_ = m.Close()
		w := k.answer(call{method: "POST", path: "/admin/import", body: body.String(), header: map[string]string{"Content-Type": m.FormDataContentType()}})
		return w.Body.String(), w.Code
	}
	if body, status := send(500_000); status != 200 || !strings.Contains(body, "file 500000") {
		t.Errorf("%d %s", status, body)
	}
	if _, status := send(most); status != 413 {
		t.Errorf("too large: %d", status)
	}
	if w := k.answer(call{method: "POST", path: "/admin/import", body: "a=b"}); w.Code != 400 {
		t.Errorf("no files: %d", w.Code)
	}
}
