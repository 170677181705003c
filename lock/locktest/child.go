package locktest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
)

// prefix begins a line on standard output that is a message. Others are what the
// test or its backend prints.
const prefix = "\x01locktest:"

// serve is the life of a child: it obeys the orders on its standard input, and ends
// at once when that does, since then its parent has.
func serve(b Backend) {
	os.Unsetenv(childEnv) // not for the processes that a backend may start
	var mu sync.Mutex
	out := os.Stdout
	w := newWorker(b, func(m message) {
		line, err := json.Marshal(m)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(4)
		}
		mu.Lock()
		defer mu.Unlock()
		// One write, and a line of its own whatever stands before it.
		if _, err := out.Write([]byte("\n" + prefix + string(line) + "\n")); err != nil {
			os.Exit(3)
		}
	})
	for in := bufio.NewReader(os.Stdin); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			os.Exit(3)
		}
		var o order
		if err := json.Unmarshal([]byte(strings.TrimSpace(line)), &o); err != nil {
			fmt.Fprintf(os.Stderr, "locktest: %v\n", err)
			os.Exit(4)
		}
		if o.Request != nil && o.Request.Op == opExit {
			os.Exit(0)
		}
		w.take(o)
	}
}
