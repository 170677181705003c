package imagecache

import (
	"regexp"
	"strings"

	"github.com/distribution/reference"

	"github.com/imagelock/imagelock/internal/memo"
)

// imageID matches what Docker would take for an image ID or a prefix of one
// when it is asked for a name without tag.
var imageID = regexp.MustCompile(`^(sha256:)?[0-9a-f]{64}$`)

// Normalize returns the full form of tag, with registry, path and tag:
// "app" becomes "docker.io/library/app:latest". The result is the key under
// which the image is locked. Its error is a [*ReferenceError].
//
// An image ID, or a reference with a digest, is refused: what they name is
// fixed by its content and cannot be built under that name.
func Normalize(tag string) (string, error) { return normalized.Get(tag, normalize) }

// normalized remembers references, which are asked for more often than they are new,
// and whose parsing takes longer than to take a lock.
var normalized memo.Memo[string]

func normalize(tag string) (string, error) {
	bad := func(reason string) (string, error) {
		return "", &ReferenceError{Tag: shortened(tag), Reason: shortened(reason)}
	}
	switch {
	case tag == "":
		return bad("empty; write a name such as app:v1")
	case imageID.MatchString(tag):
		return bad("looks like an image ID; write a name such as app:v1")
	}
	named, err := reference.ParseNormalizedNamed(tag)
	if err != nil {
		return bad(strings.TrimPrefix(err.Error(), "invalid reference format: "))
	}
	if _, ok := named.(reference.Digested); ok {
		return bad("names a digest; write a name with a tag")
	}
	return reference.TagNameOnly(named).String(), nil
}

// shortened is as much of a name as is worth showing.
func shortened(name string) string {
	if len(name) > 300 {
		name = name[:300] + "…"
	}
	return name
}
