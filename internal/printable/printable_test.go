package printable

import "testing"

func TestCleanKeepsWhatIsPrintedAndNothingElse(t *testing.T) {
	for in, want := range map[string]string{
		"plain – 文":                 "plain – 文",
		"\x1b[31mred\x1b[0m\r\n\tx": "\uFFFD[31mred\uFFFD[0m\uFFFD\n\uFFFDx",
		"\u202eevil":                "\uFFFDevil",
		"\xff\x00":                  "\uFFFD\uFFFD",
	} {
		if got := Clean(in, "\n"); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
