package printable

import "testing"

func TestAURLIsShownWithoutItsUser(t *testing.T) {
	for in, want := range map[string]string{
		"https://u:secret@host/x.git#main":  "https://host/x.git#main",
		"https://token@host":                "https://host",
		"https://u:se@cret@host?x=a@b":      "https://host?x=a@b",
		"https://host/a@b":                  "https://host/a@b",
		"git@github.com:x/y.git":            "git@github.com:x/y.git",
		"docker-image://token@registry/app": "docker-image://registry/app",
		"no address":                        "no address",
	} {
		if got := WithoutUser(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
