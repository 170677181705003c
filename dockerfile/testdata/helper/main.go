// Command helper is the program that the steps of test images run: "write FILE..." makes
// empty files, "check FILE..." fails where one is missing. As a shell (-c) it takes the
// same words.
package main

import (
	"fmt"
	"os"
	"strings"
)

func main() {
	args := os.Args[1:]
	if args[0] == "-c" {
		args = strings.Fields(args[1])
	}
	for _, file := range args[1:] {
		var err error
		if args[0] == "write" {
			err = os.WriteFile(file, nil, 0o644)
		} else {
			_, err = os.Stat(file)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
