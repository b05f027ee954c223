package secretfile

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	// attempts is how often a file is looked for whose name leads elsewhere meanwhile, as
	// when Kubernetes renews a volume.
	attempts = 3
	// maxLinks bounds the links on one path, as Linux does.
	maxLinks = 40
	// maxPEM bounds a file with a private key. Certificates may be in it, too.
	maxPEM = 1 << 20
)

var (
	// ErrTooLarge: the file is longer than Rules.Max.
	ErrTooLarge = errors.New("it is too large")

	// errReplaced: the name led to one file, and then to another one.
	errReplaced = errors.New("it was replaced while it was opened")
	errKind     = errors.New("it is not a regular file")
)

// Rules are what is asked of a file. Every file must be a regular one to which not every
// user may write.
type Rules struct {
	Max int64 // bytes
	// Denied are permissions that the file must not give to others: 0o007 for a file that
	// not every user may read.
	Denied fs.FileMode
	// Own: the file belongs to the user of this process, and its name is no link.
	Own bool
}

// Read returns the content of a file and what its descriptor says of it. The errors are
// *fs.PathError; one of them is ErrTooLarge.
func (r Rules) Read(path string) (data []byte, info fs.FileInfo, err error) {
	for range attempts {
		data, info, err = r.read(path)
		if !errors.Is(err, errReplaced) && !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return nil, nil, &fs.PathError{Op: "read", Path: path, Err: reason(err)}
	}
	return data, info, nil
}

// KeyPair is tls.LoadX509KeyPair for a private key that Rules allow.
func KeyPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, _, err := Rules{Max: maxPEM}.Read(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	// What comes before the first line of a PEM file would hide it.
	return tls.X509KeyPair(bytes.TrimPrefix(cert, utf8Mark), bytes.TrimPrefix(key, utf8Mark))
}

// CheckDirectory returns an error if another user may replace a file that this process
// writes into the directory.
func CheckDirectory(path string) error {
	at, info, err := resolve(path)
	if err == nil && everyoneWrites(info) && info.Mode()&fs.ModeSticky == 0 {
		err = openDirectory(at, info)
	}
	if err != nil {
		return &fs.PathError{Op: "write to", Path: path, Err: reason(err)}
	}
	return nil
}

func (r Rules) read(path string) ([]byte, fs.FileInfo, error) {
	if r.Own {
		if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return nil, nil, errKind
		}
	}
	at, found, err := resolve(path)
	if err != nil {
		return nil, nil, err
	}
	return r.open(path, at, found)
}

// open reads the file to which a path was found to lead, if it is still there.
func (r Rules) open(path, at string, found fs.FileInfo) ([]byte, fs.FileInfo, error) {
	f, err := os.OpenFile(at, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if err := r.judge(path, found, info); err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, r.Max+1))
	if err == nil && int64(len(data)) > r.Max {
		err = ErrTooLarge
	}
	return data, info, err
}

// judge holds an open file against the rules. It was found by its name before it was
// opened.
func (r Rules) judge(path string, found, info fs.FileInfo) error {
	switch {
	case !info.Mode().IsRegular():
		return errKind
	case r.Own && !ours(info):
		return errors.New("it belongs to another user")
	case !os.SameFile(found, info):
		return errReplaced
	case info.Mode().Perm()&permissions&(r.Denied|0o002) != 0:
		return fmt.Errorf("other users of this machine may read or change it (mode %04o): run \"chmod 600 %s\", and change the secret if one of them may know it", info.Mode().Perm(), path)
	}
	return nil
}

// resolve returns where a path leads, without links, and what is there. The error is not
// nil if a user who is not trusted may have made it lead there. The directories are judged
// from the root on: nobody else can replace what stands in one that was found to be good.
func resolve(path string) (string, fs.FileInfo, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", nil, err
	}
	root := filepath.VolumeName(path) + string(filepath.Separator)
	at, rest, links := root, split(path[len(root):]), 0
	for len(rest) > 0 {
		dir, err := os.Lstat(at)
		if err != nil {
			return "", nil, err
		}
		next := filepath.Join(at, rest[0]) // at has no links in it, so ".." is what it seems
		rest = rest[1:]
		info, err := os.Lstat(next)
		if err != nil {
			return "", nil, err
		}
		if err := trust(at, dir, next, info); err != nil {
			return "", nil, err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", nil, errors.New("there are too many links on its path")
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", nil, err
		}
		if filepath.IsAbs(target) {
			at = root
		}
		rest = append(split(target), rest...)
	}
	info, err := os.Lstat(at)
	return at, info, err
}

func split(path string) []string {
	return strings.FieldsFunc(path, func(c rune) bool { return c < 0x80 && os.IsPathSeparator(uint8(c)) })
}

// trust returns nil if only a trusted user can have put the name into the directory.
func trust(dir string, of fs.FileInfo, name string, info fs.FileInfo) error {
	if !everyoneWrites(of) {
		return nil
	}
	if of.Mode()&fs.ModeSticky == 0 {
		return openDirectory(dir, of)
	}
	if who := owner(info); !ours(info) && who != 0 && who != owner(of) {
		return fmt.Errorf("%s belongs to another user, and every user may write to the directory: give the file a directory of its own", name)
	}
	return nil
}

func openDirectory(dir string, info fs.FileInfo) error {
	return fmt.Errorf("every user of this machine may write to the directory %s (mode %04o): run \"chmod o-w %s\"", dir, info.Mode().Perm(), dir)
}

// everyoneWrites reports whether every user may write to a directory.
func everyoneWrites(dir fs.FileInfo) bool { return dir.Mode().Perm()&permissions&0o002 != 0 }

// reason is an error without the path, which the caller knows.
func reason(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
