package secretfile

import (
	"bytes"
	"errors"
)

var (
	utf8Mark   = []byte("\xef\xbb\xbf")
	utf16Marks = [][]byte{[]byte("\xff\xfe"), []byte("\xfe\xff")}
)

// Text returns the content of a file as UTF-8, without the byte order mark with which some
// programs begin a file. Text in UTF-16, which begins with another mark, is an error: no
// reader of a secret would see the same bytes in it.
func Text(data []byte) (string, error) {
	for _, mark := range utf16Marks {
		if bytes.HasPrefix(data, mark) {
			return "", errors.New("it is UTF-16: save it as UTF-8")
		}
	}
	return string(bytes.TrimPrefix(data, utf8Mark)), nil
}
