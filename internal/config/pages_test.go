package config

import "testing"

func TestValidatePages(t *testing.T) {
	for key, refused := range map[string][]string{
		"PAGES_NAME":   {"", "  ", "a\nb", "12345678901234567890123456789012345678901", "a\u202eb"},
		"PAGES_ACCENT": {"", "red", "#fff", "#12345g", "2454c6", "#2454c6;"},
		"PAGES_HEADER": {"blue", "#1234567"},
	} {
		for _, text := range refused {
			if _, err := loadText("", "WATCHWORD_"+key+"="+text); err == nil {
				t.Errorf("%s=%q was accepted", key, text)
			}
		}
	}
	c, err := loadText("", "WATCHWORD_PAGES_NAME=Beispiel & Söhne", "WATCHWORD_PAGES_ACCENT=#AB0012")
	if err != nil || c.Pages.Name != "Beispiel & Söhne" || c.Pages.Accent != "#AB0012" {
		t.Errorf("got %+v, %v", c, err)
	}
}
