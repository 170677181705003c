// Command helper is what the steps of test images run: there is no shell in them.
package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

func main() {
	switch args := os.Args[1:]; args[0] {
	case "sleep": // DURATION MARK…
		d, _ := time.ParseDuration(args[1])
		fmt.Println("sleeping", d)
		time.Sleep(d)
	case "fail": // CODE LINES
		code, _ := strconv.Atoi(args[1])
		n, _ := strconv.Atoi(args[2])
		for i := range n {
			fmt.Printf("\x1b[31mline %d\x1b[0m\n", i+1)
		}
		os.Exit(code)
	case "say": // WORDS…, the last without a newline
		for _, w := range args[1 : len(args)-1] {
			fmt.Println(w)
		}
		fmt.Fprint(os.Stderr, args[len(args)-1])
	case "full":
		fmt.Println("write /x: No space left on device")
		os.Exit(1)
	case "env": // NAME
		fmt.Printf("env %s=%s\n", args[1], os.Getenv(args[1]))
	case "append": // FILE WORD
		f, err := os.OpenFile(args[1], os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		io.WriteString(f, args[2]+".")
		b, _ := os.ReadFile(args[1])
		fmt.Printf("appended to %s\n", b)
	case "tree": // DIR
		tree(args[1])
	}
}

// tree prints what lies below dir.
func tree(dir string) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			fmt.Println("tree error", err)
			return nil
		}
		fi, _ := d.Info()
		st := fi.Sys().(*syscall.Stat_t)
		rel, _ := filepath.Rel(dir, path)
		fmt.Printf("tree %s %v %d:%d", rel, fi.Mode(), st.Uid, st.Gid)
		if target, err := os.Readlink(path); err == nil {
			fmt.Printf(" -> %s", target)
		} else if fi.Mode().IsRegular() && fi.Size() < 100 {
			b, _ := os.ReadFile(path)
			fmt.Printf(" %q", b)
		}
		fmt.Println()
		return nil
	})
}
