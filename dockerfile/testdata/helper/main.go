// Command helper is the program that the steps of test images run: "write FILE..." makes
// empty files, "check FILE..." fails where one is missing, "once FILE..." makes those that
// are missing and then stays for long. As a shell (-c) it takes the same words.
package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

func main() {
	args := os.Args[1:]
	if args[0] == "-c" {
		args = strings.Fields(args[1])
	}
	stay := false
	for _, file := range args[1:] {
		var err error
		switch args[0] {
		case "write":
			err = os.WriteFile(file, nil, 0o644)
		case "check":
			_, err = os.Stat(file)
		case "once":
			if _, err = os.Stat(file); err == nil {
				break
			}
			stay, err = true, os.WriteFile(file, nil, 0o644)
		default:
			err = fmt.Errorf("%q is not known", args[0])
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if stay {
		fmt.Println("stays until it is killed")
		// An engine may not have noticed that the builder is gone when another begins the
		// same step, and then gives him this one.
		time.Sleep(40 * time.Second)
	}
}
