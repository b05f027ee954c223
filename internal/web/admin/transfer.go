package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strconv"
	"time"

	"github.com/watchword-auth/watchword/internal/csvfile"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/userfile"
	"github.com/watchword-auth/watchword/internal/web/page"
)

const (
	importPath = usersPath + "/import"
	// maxUpload bounds the body that a file comes in: the file, and what is around it.
	maxUpload = userfile.MaxSize + 64<<10
	// uploadTime is how long an administrator has to send a file: 16 MiB at 1.2 Mbit/s.
	uploadTime = 2 * time.Minute
	// shownRefusals is how many refused rows a page shows. All that are known are in the report.
	shownRefusals = 100
)

func (f *face) mountTransfer() {
	f.get(importPath, f.askImport)
	f.kit.PostLarge(importPath, page.SignedIn, maxUpload, f.administrator(f.importUsers))
	f.get(importPath+"/{id}", f.importProgress)
	f.get(importPath+"/{id}/refused", f.importReport)
	f.get(usersPath+"/export", f.exportUsers)
}

func (f *face) askImport(v *visit) error {
	if err := f.Directory.Authorize(v.Request.Context(), v.Actor(), directory.UsersWrite); err != nil {
		return err
	}
	l, err := f.importLayout(v, page.Message{})
	if err != nil {
		return err
	}
	return v.show(l)
}

func (f *face) importLayout(v *visit, m page.Message) (page.Layout, error) {
	imports, err := f.Directory.Imports(v.Request.Context(), v.Actor(), v.User.ID)
	return page.Layout{Title: "Import users", Active: usersPath, Content: importContent(m, imports, v.Now())}, err
}

// importUsers begins an import and leads to its progress. The import itself outlives the request:
// it runs until its last row, or until this replica is stopped, which it then says.
func (f *face) importUsers(v *visit) error {
	ctx := v.Request.Context()
	// Before anybody's file is read.
	if err := f.Directory.Authorize(ctx, v.Actor(), directory.UsersWrite); err != nil {
		return err
	}
	// The server gives a request less time; one that knows no deadlines has none to extend.
	control := http.NewResponseController(v.Writer)
	now := time.Now()
	_ = control.SetReadDeadline(now.Add(uploadTime))
	_ = control.SetWriteDeadline(now.Add(uploadTime + httpkit.WriteTimeout))
	rows, err := f.upload(v)
	var run *directory.Import
	if err == nil {
		run, err = f.Directory.BeginImport(ctx, v.Actor(), rows)
	}
	if err != nil {
		l, failed := f.importLayout(v, page.Message{})
		if failed != nil {
			return err
		}
		return v.retry(err, func(m page.Message) page.Layout {
			l.Content = importContent(m, nil, v.Now())
			return l
		})
	}
	id := run.Progress().ID
	f.Background(func(ctx context.Context) { run.Run(ctx) })
	return v.Redirect(importPath + "/" + id)
}

var errNoFile = problem.New(problem.Invalid, "file_missing", "choose a file")

// upload reads the rows of the file that was sent.
func (f *face) upload(v *visit) ([]userfile.Row, error) {
	parts, err := v.Parts()
	if err != nil {
		return nil, err
	}
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return nil, errNoFile
		}
		if err != nil {
			return nil, v.FormError(err)
		}
		if part.FormName() == "file" {
			return f.readFile(v, part)
		}
	}
}

func (f *face) readFile(v *visit, part *multipart.Part) ([]userfile.Row, error) {
	if part.FileName() == "" {
		return nil, errNoFile
	}
	rows, err := userfile.Read(part)
	if err != nil && problem.From(err).Kind == problem.Internal {
		err = v.FormError(err)
	}
	return rows, err
}

func (f *face) importProgress(v *visit) error {
	p, err := f.Directory.ImportProgress(v.Request.Context(), v.Actor(), v.User.ID, v.Request.PathValue("id"))
	if err != nil {
		return err
	}
	if v.IsHTMX() {
		return v.Fragment(http.StatusOK, importStatus(p, v.Now()))
	}
	return v.show(page.Layout{Title: "Import of users", Active: usersPath, Live: true, Content: importStatus(p, v.Now())})
}

// importReport is a table of the rows that were refused.
func (f *face) importReport(v *visit) error {
	p, err := f.Directory.ImportProgress(v.Request.Context(), v.Actor(), v.User.ID, v.Request.PathValue("id"))
	if err != nil {
		return err
	}
	w := csvfile.NewWriter(download(v, "refused.csv", "text/csv; charset=utf-8"))
	if err := w.Line("line", "username", "code", "why"); err != nil {
		return err
	}
	for _, r := range p.Refusals {
		if err := w.Line(strconv.Itoa(r.Line), r.Username, r.Code, r.Why); err != nil {
			return err
		}
	}
	return w.Flush()
}

func (f *face) exportUsers(v *visit) error {
	form, mediaType := userfile.CSV, "text/csv; charset=utf-8"
	switch v.Field("format") {
	case string(userfile.JSON):
		form, mediaType = userfile.JSON, "application/json"
	case string(userfile.JSONLines):
		form, mediaType = userfile.JSONLines, "application/jsonl"
	}
	w := download(v, fmt.Sprintf("users-%s.%s", v.Now().UTC().Format("2006-01-02"), form), mediaType)
	err := f.Directory.ExportUsers(v.Request.Context(), v.Actor(), w, form)
	if err != nil && w.begun {
		httpkit.NoteCause(v.Writer, err)
		panic(http.ErrAbortHandler) // so that nobody takes a part of the file for the whole
	}
	return err
}

// A downloading is a file on its way to a browser, which has httpkit.WriteTimeout for each piece.
type downloading struct {
	v               *visit
	name, mediaType string
	begun           bool
}

// download returns a writer of a file that the browser saves. Until something is written, the
// answer can still be another one.
func download(v *visit, name, mediaType string) *downloading {
	return &downloading{v: v, name: name, mediaType: mediaType}
}

func (d *downloading) Write(b []byte) (int, error) {
	w := d.v.Writer
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(httpkit.WriteTimeout))
	if !d.begun {
		d.begun = true
		h := w.Header()
		h.Set("Content-Type", d.mediaType)
		h.Set("Content-Disposition", `attachment; filename="`+d.name+`"`)
	}
	return w.Write(b)
}
