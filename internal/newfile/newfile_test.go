package newfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// noLinks is os.Link on a file system that has none.
func noLinks(from, to string) error {
	return &os.LinkError{Op: "link", Old: from, New: to, Err: syscall.EPERM}
}

// names are the names in a directory, each with a space behind.
func names(t *testing.T, dir string) (all string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		all += f.Name() + " "
	}
	return all
}

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

// Of many writers of one name exactly one succeeds. The others get ErrExist, also those
// that had begun before the name was taken, and the file is the winner's.
func TestWriteOnce(t *testing.T) {
	for name, write := range map[string]func(string, func(io.Writer) error) error{"Write": Write, "WriteAnywhere": WriteAnywhere} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "a[b].key")
			const writers = 16
			var all, begun sync.WaitGroup
			begun.Add(writers)
			errs := make([]error, writers)
			for i := range writers {
				all.Go(func() {
					errs[i] = write(path, func(w io.Writer) error {
						begun.Done()
						begun.Wait()
						return text(fmt.Sprint("from ", i))(w)
					})
				})
			}
			all.Wait()
			winner := slices.Index(errs, nil)
			for i, err := range errs {
				if i != winner && !errors.Is(err, fs.ErrExist) {
					t.Errorf("writer %d: %v", i, err)
				}
			}
			got, err := os.ReadFile(path)
			if err != nil || string(got) != fmt.Sprint("from ", winner) {
				t.Errorf("%d won, and the file is %q, %v", winner, got, err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
				t.Errorf("%v, %v", info, err)
			}
			if all := names(t, dir); all != "a[b].key " {
				t.Errorf("left are %s", all)
			}
			untouched := func(io.Writer) error { t.Error("it was written again"); return nil }
			if err := write(path, untouched); !errors.Is(err, fs.ErrExist) {
				t.Errorf("once more: %v", err)
			}
		})
	}
}

// While a file is written it has no name, and if that fails, nothing is left.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	path, mine := filepath.Join(dir, "backup"), errors.New("mine")
	err := Write(path, func(w io.Writer) error {
		if err := text("half")(w); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("meanwhile: %v", err)
		}
		return mine
	})
	if !errors.Is(err, mine) || names(t, dir) != "" {
		t.Errorf("error %v, left are %s", err, names(t, dir))
	}
	if err := Write(filepath.Join(dir, "none", "backup"), text("x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a directory: %v", err)
	}
}

// Without hard links Write fails, and WriteAnywhere renames.
func TestWithoutLinks(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "backup")
	if err := create(path, noLinks, text("x")); !errors.Is(err, syscall.EPERM) || names(t, dir) != "" {
		t.Errorf("error %v, left are %s", err, names(t, dir))
	}
	rename := func(from, to string) error { return linkOrRename(noLinks, from, to) }
	if err := create(path, rename, text("x")); err != nil || names(t, dir) != "backup " {
		t.Errorf("error %v, left are %s", err, names(t, dir))
	}
}

func TestRemovePartial(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"key", "key.123.partial", "key.4.partial", "key.old", "other.5.partial"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemovePartial(filepath.Join(dir, "key")); err != nil || names(t, dir) != "key key.old other.5.partial " {
		t.Errorf("error %v, left are %s", err, names(t, dir))
	}
}

// A secret is not written where another user may replace it. A file that is itself
// encrypted is.
func TestDirectoryThatOthersMayWriteTo(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	untouched := func(io.Writer) error { t.Error("it was written"); return nil }
	if err := Write(filepath.Join(dir, "key"), untouched); err == nil || names(t, dir) != "" {
		t.Errorf("error %v, left are %s", err, names(t, dir))
	}
	if err := WriteAnywhere(filepath.Join(dir, "backup"), text("x")); err != nil {
		t.Error(err)
	}
}
