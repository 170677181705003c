package inputs_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/imagelock/imagelock/imagecache/inputs"
)

// What is excluded does not count, what is in the image does.
func ExampleInputs_Digest() {
	dir, err := os.MkdirTemp("", "service-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			log.Fatal(err)
		}
	}
	write(".dockerignore", "*.log\n")
	write("main.go", "package main\n")
	in := inputs.New().Dir(dir).Arg("GO_VERSION", "1.26")

	digest := func() string {
		d, err := in.Digest(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		return d
	}
	first := digest()
	write("test.log", "ok\n")
	fmt.Println("after a log was written:", digest() == first)
	write("main.go", "package main // changed\n")
	fmt.Println("after a source was changed:", digest() == first)
	// Output:
	// after a log was written: true
	// after a source was changed: false
}
