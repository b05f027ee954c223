package mfa

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode"

	"github.com/watchword-auth/watchword/internal/problem"
)

func TestDigits(t *testing.T) {
	for typed, want := range map[string]string{
		"123456":                            "123456",
		"000000":                            "000000",
		"123 456":                           "123456",
		" 12 34 56\r\n":                     "123456",
		"\t123-456":                         "123456",
		"123.456":                           "123456",
		"123\u00a0456":                      "123456", // no-break space
		"123\u202f456":                      "123456", // narrow no-break space
		"123\u2007456":                      "123456", // figure space
		"123\u3000456":                      "123456", // ideographic space
		"12\u201034\u201156":                "123456", // hyphens
		"12\u201334\u221256":                "123456", // en dash, minus
		"１２３４５６":                            "123456", // full width
		"１２３　４５６":                           "123456",
		"１２．３４－５６":                          "123456",
		"١٢٣٤٥٦":                            "123456", // Arabic
		"۰۱۲۷۸۹":                            "012789", // Persian
		"०१२७८९":                            "012789", // Devanagari
		"𝟎𝟗𝟘𝟡𝟢𝟿":                            "090909", // mathematical, in runs without a gap
		"1２٣۴५𝟔":                            "123456",
		strings.Repeat(" ", 250) + "123456": "123456",
	} {
		if got, err := digits(typed); err != nil || got != want {
			t.Errorf("%q: %q, %v, not %q", typed, got, err, want)
		}
	}
	for _, typed := range []string{
		"", " ", "12345", "1234567", "123 4567", "12345a", "+123456", "123,456", "123_456", "123/456", "1e3456",
		"12345\x00", "123456\x00", "12345\xff", "123456\xff", "12345²", "12345Ⅵ", "12345六", "12345½", "12345①",
		"123\u200b456", "123\u202e456", "0x1234", "-½23456", strings.Repeat(" ", 251) + "123456",
		"abcd-efgh-jkmn-pqrs",
	} {
		if got, err := digits(typed); !errors.Is(err, errMalformedCode) || got != "" {
			t.Errorf("%q: %q, %v", typed, got, err)
		}
	}
}

// Python's tables are a second judge of what digits are worth.
func TestDigitsOfAllScripts(t *testing.T) {
	out, err := exec.Command("/usr/bin/python3", "-c", `
import json, sys, unicodedata
print(json.dumps({c: unicodedata.decimal(chr(c)) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) == "Nd"}))`).Output()
	if err != nil {
		t.Fatal(err)
	}
	theirs := map[string]int{}
	if err := json.Unmarshal(out, &theirs); err != nil {
		t.Fatal(err)
	}
	if len(theirs) < 600 {
		t.Fatalf("Python knows only %d digits", len(theirs))
	}
	for text, want := range theirs {
		c, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := decimal(rune(c)); !ok || int(got-'0') != want {
			t.Errorf("%U is %q (%t), not %d", c, got, ok, want)
		}
	}
	for c := range rune(unicode.MaxRune + 1) {
		if b, ok := decimal(c); ok != unicode.Is(unicode.Nd, c) || ok && (b < '0' || b > '9') {
			t.Errorf("%U is %q (%t)", c, b, ok)
		}
	}
}

func TestBackupCode(t *testing.T) {
	const want = "0123456789abcdef"
	for _, typed := range []string{
		"0123-4567-89ab-cdef", "0123456789abcdef", "0123456789ABCDEF", "0123 4567 89AB CDEF", " 0123-4567-89ab-cdef\n",
		"o123-4567-89ab-cdef", "Oi23-4567-89ab-cdef", "ol23-4567-89ab-cdef", "OL23-4567-89ab-cdef", "OI23-4567-89ab-cdef",
		"０１２３－４５６７－８９ＡＢ－ＣＤＥＦ", "０１２３　４５６７　８９ａｂ　ｃｄｅｆ", "ｏｌ２３４５６７８９ａｂｃｄｅｆ", "ＯＩ２３４５６７８９ａｂｃｄｅｆ",
		"0123\u20114567\u201389ab.cdef", "٠١٢٣-٤٥٦٧-٨٩ab-cdef",
	} {
		if got, err := backupCode(typed); err != nil || got != want {
			t.Errorf("%q: %q, %v", typed, got, err)
		}
	}
	for _, typed := range []string{
		"", "-", "0123-4567-89ab-cde", "0123-4567-89ab-cdef0", "0123-4567-89ab-cdeu", "0123-4567-89ab-cdeU", "0123-4567-89ab-cdeｕ",
		"0123_4567_89ab_cdef", "0123-4567-89ab-cde\x00", "0123-4567-89ab-cde\xff", "0123-4567-89ab-cdé0", "0123-4567-89ab-cdeс", // Cyrillic
		"0123-4567-89ab-cde＿", "0123-4567-89ab-cde［", "0123-4567-89ab-cde@", "0123-4567-89ab-cde`", "0123-4567-89ab-cde{",
		"123456", strings.Repeat("-", 241) + want,
	} {
		if got, err := backupCode(typed); !errors.Is(err, errMalformedCode) || got != "" {
			t.Errorf("%q: %q, %v", typed, got, err)
		}
	}
	if got, err := backupCode(strings.Repeat("-", 240) + want); err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
}

// A refusal is for the client to read: a 422 with a stable code, and without what was typed.
func TestMalformedCodeIsAProblem(t *testing.T) {
	_, err := digits("secret")
	p := problem.From(err)
	if p.Kind != problem.Invalid || p.Code != "malformed_code" || p.Detail == "" || strings.Contains(err.Error(), "secret") {
		t.Errorf("%+v", p)
	}
}

// A code of 10 MB is refused by its length, in no time and without memory.
func TestLongCodesCostNothing(t *testing.T) {
	long := strings.Repeat("1", 10<<20)
	spaces := strings.Repeat(" ", 10<<20)
	refuse := func() (took time.Duration) {
		start := time.Now()
		allocations := testing.AllocsPerRun(100, func() {
			for _, typed := range []string{long, spaces} {
				if _, err := digits(typed); err != errMalformedCode {
					t.Fatal(err)
				}
				if _, err := backupCode(typed); err != errMalformedCode {
					t.Fatal(err)
				}
			}
		})
		if took = time.Since(start); allocations != 0 {
			t.Errorf("a refusal allocates %v times", allocations)
		}
		return took
	}
	took := refuse()
	for range 5 { // the machine may stand still, but not each time
		if took > time.Second {
			took = refuse()
		}
	}
	if took > time.Second { // reading the spaces takes several
		t.Errorf("refusing 400 codes took %s", took)
	}
}

func TestNewBackupCodes(t *testing.T) {
	form := regexp.MustCompile(`^([0-9a-hjkmnp-tv-z]{4}-){3}[0-9a-hjkmnp-tv-z]{4}$`)
	seen := map[string]bool{}
	for range 100 {
		codes, err := newBackupCodes(rand.Reader)
		if err != nil || len(codes) != 10 {
			t.Fatalf("%d codes, %v", len(codes), err)
		}
		for _, code := range codes {
			normal, err := backupCode(code)
			if !form.MatchString(code) || err != nil || normal != strings.ReplaceAll(code, "-", "") {
				t.Errorf("%s: %q, %v", code, normal, err)
			}
			if upper, err := backupCode(strings.ToUpper(code)); err != nil || upper != normal {
				t.Errorf("%s in upper case: %q, %v", code, upper, err)
			}
			if seen[code] {
				t.Errorf("%s was made twice", code)
			}
			seen[code] = true
		}
	}
	broken := errors.New("no randomness")
	if codes, err := newBackupCodes(iotest.ErrReader(broken)); !errors.Is(err, broken) || codes != nil {
		t.Errorf("%v, %v", codes, err)
	}
	if codes, err := newBackupCodes(bytes.NewReader(make([]byte, 99))); err == nil || codes != nil {
		t.Errorf("99 random bytes made %v", codes)
	}
}

// Each character of a code is five bits of the random bytes, so each is as likely as the
// others at every place, and different bytes make different codes.
func TestBackupCodesAreUnbiased(t *testing.T) {
	var counts [16][256]int
	for place := range 16 {
		for value := range byte(32) {
			raw := make([]byte, 100)
			for bit := range 5 {
				if value&(1<<(4-bit)) != 0 {
					raw[(place*5+bit)/8] |= 1 << (7 - (place*5+bit)%8)
				}
			}
			codes, err := newBackupCodes(bytes.NewReader(raw))
			if err != nil {
				t.Fatal(err)
			}
			code := strings.ReplaceAll(codes[0], "-", "")
			counts[place][code[place]]++
			if others := code[:place] + code[place+1:]; others != strings.Repeat("0", 15) {
				t.Errorf("bits of place %d change other places: %s", place, code)
			}
		}
		for c, n := range counts[place] {
			if want := strings.Count(backupAlphabet, string(rune(c))); n != want {
				t.Errorf("character %d stands at place %d for %d values of 32", c, place, n)
			}
		}
	}
	if len(backupAlphabet) != 32 || strings.ContainsAny(backupAlphabet, "ilou") {
		t.Errorf("the alphabet is %s", backupAlphabet)
	}
}

func TestMatchBackupCode(t *testing.T) {
	codes, err := newBackupCodes(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var hashes [][]byte
	for _, code := range codes {
		normal, err := backupCode(code)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, hashBackupCode(normal))
	}
	for i, code := range codes {
		normal := strings.ReplaceAll(code, "-", "")
		if got := matchBackupCode(hashes, normal); got != i {
			t.Errorf("code %d matches %d", i, got)
		}
		rest := append(append([][]byte{}, hashes[:i]...), hashes[i+1:]...)
		if got := matchBackupCode(rest, normal); got != -1 {
			t.Errorf("code %d matches %d without its hash", i, got)
		}
		if got := matchBackupCode(hashes, code); got != -1 {
			t.Errorf("code %d matches %d in a form that is not the normal one", i, got)
		}
	}
	for _, none := range [][][]byte{nil, {}, {nil}, {{}, {0}, hashes[0][:31]}} {
		if got := matchBackupCode(none, strings.ReplaceAll(codes[0], "-", "")); got != -1 {
			t.Errorf("a code matches %d of %x", got, none)
		}
	}
}

// What is kept in databases stays as it is: a changed hash would make all codes worthless.
func TestHashOfBackupCodeStays(t *testing.T) {
	// printf watchword/backup-code/v1:0123456789abcdef | sha256sum
	const want = "89cce3e1b62b62d7be1c2004dc99b46143f96b6ad325a77f8981e05dcf8466eb"
	if got := hex.EncodeToString(hashBackupCode("0123456789abcdef")); got != want {
		t.Errorf("%s, not %s", got, want)
	}
}

func FuzzDigits(f *testing.F) {
	for _, seed := range []string{"123 456", "１２３－４５６", "٠١٢٣٤٥", "12345\xff", "𝟎𝟗𝟘𝟡𝟢𝟿", "1234567", strings.Repeat(" ", 300)} {
		f.Add(seed)
	}
	form := regexp.MustCompile(`^[0-9]{6}$`)
	f.Fuzz(func(t *testing.T, typed string) {
		checkNormal(t, typed, form, digits)
		if code, err := digits(typed); err == nil {
			if last := code[3:] + " - " + code[:3]; mustNormal(t, digits, last) != code[3:]+code[:3] {
				t.Errorf("%q", last)
			}
		}
	})
}

func FuzzBackupCode(f *testing.F) {
	for _, seed := range []string{"0123-4567-89ab-cdef", "ＯＩ２３４５６７８９ａｂｃｄｅｆ", "olil-OLIL-zzzz-zzzz", "0123-4567-89ab-cdeu", "0123-4567-89ab-cde\u212a"} {
		f.Add(seed)
	}
	form := regexp.MustCompile(`^[0-9a-hjkmnp-tv-z]{16}$`)
	f.Fuzz(func(t *testing.T, typed string) {
		checkNormal(t, typed, form, backupCode)
		if code, err := backupCode(typed); err == nil {
			wide := strings.Map(func(c rune) rune { return c - '0' + '０' }, strings.ToUpper(code))
			people := strings.NewReplacer("0", "O", "1", "l").Replace(code)
			if mustNormal(t, backupCode, wide) != code || mustNormal(t, backupCode, people) != code {
				t.Errorf("%q has another normal form than %q or %q", typed, wide, people)
			}
		}
	})
}

// checkNormal checks what holds for every input: an error, or the normal form of a code,
// which is its own normal form, and none for an input that has more than a code has.
func checkNormal(t *testing.T, typed string, form *regexp.Regexp, normal func(string) (string, error)) {
	t.Helper()
	code, err := normal(typed)
	if err != nil {
		if err != errMalformedCode || code != "" {
			t.Errorf("%q: %q, %v", typed, code, err)
		}
		return
	}
	if !form.MatchString(code) || len(typed) > maxTyped || mustNormal(t, normal, code) != code {
		t.Errorf("%q: %q", typed, code)
	}
	if again, err := normal(typed + "0"); err == nil {
		t.Errorf("%q and one character more: %q", typed, again)
	}
}

func mustNormal(t *testing.T, normal func(string) (string, error), typed string) string {
	t.Helper()
	code, err := normal(typed)
	if err != nil {
		t.Errorf("%q: %v", typed, err)
	}
	return code
}
