package main

import (
	"log"
	"os"
)

func Example() {
	if err := run(os.Stdout); err != nil {
		log.Fatal(err)
	}
	// Output:
	// error: exit status 1
	// build docker.io/library/good:v1, in true, 0 errors
	// build docker.io/library/bad:v1, in true, 1 errors
	// prepare, in false, 0 errors
}
