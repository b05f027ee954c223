package userfile

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/watchword-auth/watchword/internal/csvfile"
	"github.com/watchword-auth/watchword/internal/problem"
)

// A Writer writes users into a file that Parse can read. It writes no password hashes.
type Writer struct {
	w     io.Writer
	form  Form
	table *csvfile.Writer
	begun bool
}

// NewWriter makes a Writer of a form. Close ends the file.
func NewWriter(w io.Writer, form Form) (*Writer, error) {
	switch form {
	case CSV, JSON, JSONLines:
		return &Writer{w: w, form: form, table: csvfile.NewWriter(w)}, nil
	}
	return nil, problem.New(problem.Invalid, "invalid_form", "a file of users has the form %s, %s or %s", CSV, JSON, JSONLines)
}

// Write writes users. When it returns nil, all of them are in the file.
func (w *Writer) Write(users []User) error {
	if err := w.write(users); err != nil {
		return fmt.Errorf("userfile: %w", err)
	}
	return nil
}

func (w *Writer) write(users []User) error {
	if w.form == CSV && !w.begun {
		w.begun = true
		if err := w.table.Line(Columns[:len(Columns)-1]...); err != nil {
			return err
		}
	}
	for _, u := range users {
		if w.form == CSV {
			err := w.table.Line(u.Username, u.Email, strconv.FormatBool(u.EmailVerified), u.FirstName, u.LastName, strconv.FormatBool(u.Disabled), joinGroups(u.Groups))
			if err != nil {
				return err
			}
			continue
		}
		before, after := "", "\n"
		if w.form == JSON {
			before, after = ",\n", ""
			if !w.begun {
				before = "[\n"
			}
		}
		w.begun = true
		text, err := json.Marshal(struct {
			Username      string   `json:"username"`
			Email         string   `json:"email"`
			EmailVerified bool     `json:"email_verified"`
			FirstName     string   `json:"first_name"`
			LastName      string   `json:"last_name"`
			Disabled      bool     `json:"disabled"`
			Groups        []string `json:"groups"`
		}{u.Username, u.Email, u.EmailVerified, u.FirstName, u.LastName, u.Disabled, append([]string{}, u.Groups...)})
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w.w, "%s%s%s", before, text, after); err != nil {
			return err
		}
	}
	return w.table.Flush()
}

// Close writes what ends the file.
func (w *Writer) Close() error {
	err := w.Write(nil)
	if err == nil && w.form == JSON {
		end := "\n]\n"
		if !w.begun {
			end = "[]\n"
		}
		_, err = io.WriteString(w.w, end)
	}
	return err
}
