package httpkit

import (
	"encoding/json"
	"testing"
)

// A number reads itself, as some types of requests do.
type number float64

func (n *number) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, (*float64)(n)) }

// Names are compared as they stand, however deep: no request nests objects so far.
func TestNamesMatchExactly(t *testing.T) {
	type inner struct {
		Name string `json:"name"`
	}
	type outer struct {
		One  *inner  `json:"one,omitempty"`
		Many []inner `json:"many,omitempty"`
		Free any     `json:"free,omitempty"`
		When *number `json:"when,omitempty"`
	}
	for body, want := range map[string]string{
		`{"one":{"name":"a"},"many":[{"name":"b"}],"free":{"Name":1},"when":1}`: "",
		`{"One":{"name":"a"}}`:                      `the body has unknown field "One"`,
		`{"one":{"Name":"a"}}`:                      `the body has unknown field "Name"`,
		`{"many":[{"name":"a"},{"na\u006de":"b"}]}`: "",
		`{"many":[{"name":"a"},{"NAME":"b"}]}`:      `the body has unknown field "NAME"`,
		`{"one":null,"many":null}`:                  "",
	} {
		err := decodeStrict([]byte(body), &outer{})
		if got := detail(err); got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}

func detail(err error) string {
	if err == nil {
		return ""
	}
	p, _ := answer(err)
	return p.Detail
}
