package mfa

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"fmt"
	"io"
	"unicode"

	"github.com/watchword-auth/watchword/internal/problem"
)

const (
	// backupAlphabet is Crockford's base32: without i and l, which look like 1, without o,
	// which looks like 0, and without u, which looks like v.
	backupAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	backupLength   = 16 // characters of 5 bits: nobody finds one from its hash, which is a fast one
	backupCount    = 10
	maxTyped       = 256 // bytes of a code as it is typed, whatever stands between its characters
)

var errMalformedCode = problem.New(problem.Invalid, "malformed_code",
	"a code of an authenticator app has %d digits, a backup code has %d letters and digits", totpDigits, backupLength)

// digits returns a code of an authenticator app in its normal form, six ASCII digits, from
// what a person typed. Separators may stand anywhere, and the digits may be those of any
// script. The error is errMalformedCode.
func digits(s string) (string, error) {
	return normalCode(s, totpDigits, decimal)
}

// backupCode returns a backup code in its normal form, 16 characters of backupAlphabet, from
// what a person typed: in any case, with separators anywhere, with letters and digits of full
// width, with o for 0, and with i or l for 1. The error is errMalformedCode.
func backupCode(s string) (string, error) {
	return normalCode(s, backupLength, func(c rune) (byte, bool) {
		if c >= 'Ａ' && c <= 'ｚ' {
			c -= 'Ａ' - 'A'
		}
		switch c = unicode.ToLower(c); c {
		case 'o':
			return '0', true
		case 'i', 'l':
			return '1', true
		case 'u':
			return 0, false
		}
		if c >= 'a' && c <= 'z' {
			return byte(c), true
		}
		return decimal(c)
	})
}

// normalCode drops the separators of what was typed, and replaces each other character by
// what normal returns for it, which also reports whether the character may be there.
func normalCode(typed string, length int, normal func(rune) (byte, bool)) (string, error) {
	if len(typed) > maxTyped {
		return "", errMalformedCode
	}
	var code []byte
	for _, c := range typed {
		if separates(c) {
			continue
		}
		b, ok := normal(c)
		if !ok {
			return "", errMalformedCode
		}
		code = append(code, b)
	}
	if len(code) != length {
		return "", errMalformedCode
	}
	return string(code), nil
}

// separates reports whether a character is one that people and apps put between groups: a
// space of any kind, a hyphen or a dash, a dot.
func separates(c rune) bool {
	const minus, wideDot = '\u2212', '\uff0e'
	return unicode.IsSpace(c) || unicode.Is(unicode.Pd, c) || c == minus || c == '.' || c == wideDot
}

// decimal returns the ASCII digit that has the value of c, and reports whether c is a decimal
// digit of any script. Unicode has them in runs from zero to nine, which may follow each
// other without a gap.
func decimal(c rune) (byte, bool) {
	if !unicode.IsDigit(c) {
		return 0, false
	}
	before := rune(0)
	for unicode.IsDigit(c - before - 1) {
		before++
	}
	return byte('0' + before%10), true
}

// newBackupCodes makes the backup codes of a user, as people read them: in lower case, with
// hyphens between groups of four.
func newBackupCodes(random io.Reader) ([]string, error) {
	codes := make([]string, backupCount)
	for i := range codes {
		var raw [backupLength * 5 / 8]byte
		if _, err := io.ReadFull(random, raw[:]); err != nil {
			return nil, fmt.Errorf("reading random bytes for backup codes: %w", err)
		}
		code := base32.NewEncoding(backupAlphabet).WithPadding(base32.NoPadding).EncodeToString(raw[:])
		codes[i] = code[:4] + "-" + code[4:8] + "-" + code[8:12] + "-" + code[12:]
	}
	return codes, nil
}

// hashBackupCode returns what is kept of a backup code in its normal form.
func hashBackupCode(normal string) []byte {
	sum := sha256.Sum256([]byte("watchword/backup-code/v1:" + normal))
	return sum[:]
}

// matchBackupCode returns which of the hashes is that of a code in its normal form, or −1.
// How long it takes depends only on how many hashes there are.
func matchBackupCode(hashes [][]byte, normal string) int {
	hash, found := hashBackupCode(normal), -1
	for i, h := range hashes {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(h, hash), i, found)
	}
	return found
}
