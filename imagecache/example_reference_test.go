package imagecache_test

import (
	"fmt"

	"github.com/imagelock/imagelock/imagecache"
)

// The key under which an image is locked, whatever people call it.
func ExampleNormalize() {
	for _, tag := range []string{"app", "docker.io/library/app:latest", "registry.example/team/app:v1", "App"} {
		ref, err := imagecache.Normalize(tag)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(ref)
	}
	// Output:
	// docker.io/library/app:latest
	// docker.io/library/app:latest
	// registry.example/team/app:v1
	// imagecache: bad image reference "App": repository name (library/App) must be lowercase
}
