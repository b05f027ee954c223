// Package newfile writes files that only this user can read. A file gets its name only
// when it is complete and on disk, whenever the process is killed, and no file is
// replaced.
package newfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/watchword-auth/watchword/internal/secretfile"
)

// partial ends the name of a file that is not complete.
const partial = ".partial"

// Write makes a file with mode 0600 and the content that write writes. The error is an
// fs.ErrExist if the name is taken, also when another process takes it during the write;
// then that file is on disk, too. The file system must have hard links: a link, unlike a
// rename, replaces nothing. A directory in which another user may replace the file is
// refused.
func Write(path string, write func(w io.Writer) error) error {
	if err := secretfile.CheckDirectory(filepath.Dir(path)); err != nil {
		return err
	}
	return create(path, os.Link, write)
}

// WriteAnywhere is Write for a file that is itself encrypted. It takes any directory, and
// works also on a file system without hard links, such as FAT and some network shares. There
// it replaces a file that takes the name during the write.
func WriteAnywhere(path string, write func(w io.Writer) error) error {
	return create(path, func(from, to string) error { return linkOrRename(os.Link, from, to) }, write)
}

func linkOrRename(link func(from, to string) error, from, to string) error {
	if err := link(from, to); err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Rename(from, to)
}

func create(path string, name func(from, to string) error, write func(w io.Writer) error) (err error) {
	dir := filepath.Dir(path)
	if _, err := os.Lstat(path); err == nil {
		return errors.Join(&fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}, syncDir(dir))
	}
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*"+partial) // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove(f.Name())) }()
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	err = name(f.Name(), path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		err = errors.Join(err, syncDir(dir))
	}
	return err
}

// RemovePartial removes the incomplete files that killed processes have left of path. No
// process may be writing it.
func RemovePartial(path string) error {
	dir, name := filepath.Split(path)
	files, err := os.ReadDir(filepath.Clean(dir))
	for _, f := range files {
		if strings.HasPrefix(f.Name(), name+".") && strings.HasSuffix(f.Name(), partial) {
			err = errors.Join(err, remove(filepath.Join(dir, f.Name())))
		}
	}
	return err
}

// remove removes a file, if there is one.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
