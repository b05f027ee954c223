package config

import (
	"reflect"
	"testing"
)

func TestWhereTracesGo(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "",
		"http://collector:4318":         "http://collector:4318/v1/traces",
		"http://collector:4318/":        "http://collector:4318/v1/traces",
		"https://collector/otlp/traces": "https://collector/otlp/traces",
	} {
		if got := (&Traces{Endpoint: text}).URL(); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	c, err := loadText("", "OTEL_EXPORTER_OTLP_TRACES_HEADERS= authorization = Bearer%20a%2Cb ,x-tenant=a=b")
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Telemetry.Traces.Header()
	if want := map[string]string{"Authorization": "Bearer a,b", "X-Tenant": "a=b"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v, %v", got, want, err)
	}
	if c.Telemetry.Traces.SampleRatio != 1 {
		t.Errorf("the ratio is %v", c.Telemetry.Traces.SampleRatio)
	}
}
