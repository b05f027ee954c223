package page

import (
	"context"
	"math"
	"strconv"
	"strings"
)

// Number returns a whole number as it is written in the visitor's language.
func (v *Visit) Number(n int) string { return grouped(strconv.Itoa(n), v.T("number.group")) }

// Number is Visit.Number for templates.
func Number[N ~int | ~int64](ctx context.Context, n N) string { return Of(ctx).Number(int(n)) }

// Decimal returns a number with at most three digits that count, and never fewer than its
// whole part has.
func (v *Visit) Decimal(x float64) string {
	places := 0
	if a := math.Abs(x); a != 0 && a < 100 {
		places = max(0, min(2-int(math.Floor(math.Log10(a))), 4))
	}
	whole, fraction, _ := strings.Cut(strconv.FormatFloat(x, 'f', places, 64), ".")
	if fraction = strings.TrimRight(fraction, "0"); fraction != "" {
		fraction = v.T("number.point") + fraction
	}
	return grouped(whole, v.T("number.group")) + fraction
}

// grouped puts a separator between thousands.
func grouped(digits, separator string) string {
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + separator + digits[i:]
	}
	return sign + digits
}
