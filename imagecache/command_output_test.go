package imagecache

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTailKeepsTheLastLinesAsATerminalShowsThem(t *testing.T) {
	var last tail
	for i := range 50 {
		fmt.Fprintf(writer(last.write), "line %d\n\n", i)
	}
	last.write([]byte("\x1b[31mred\x1b[0m \x1b]0;title\x07text\r\n  10%\r  50%\r 100%\nbell\a\x00\xff\n" + strings.Repeat("x", 3*lineBytes) + "\nno end"))
	got := last.lines()
	want := []string{"red text", " 100%", "bell\uFFFD", strings.Repeat("x", lineBytes) + "…", "no end"}
	if len(got) != tailLines || !slices.Equal(got[tailLines-len(want):], want) || got[0] != "line 35" {
		t.Errorf("got %d lines: %q", len(got), got)
	}
}

func TestTailIsBoundedWithoutLineEnds(t *testing.T) {
	var last tail
	for range 10_000 {
		last.write([]byte(strings.Repeat("x", 1000)))
	}
	if c := cap(last.part); c > 1<<20 {
		t.Errorf("it keeps %d bytes of one line", c)
	}
}

func FuzzTail(f *testing.F) {
	f.Add([]byte("a\nb\r\nc"), 2)
	f.Add([]byte("\x1b[1mx\x1b[0m\n\xff\n"), 3)
	f.Fuzz(func(t *testing.T, out []byte, split int) {
		if len(out) > 16*lineBytes {
			return
		}
		var whole, parts tail
		whole.write(out)
		split = max(0, min(split, len(out)))
		parts.write(out[:split])
		parts.write(out[split:])
		lines := whole.lines()
		if !slices.Equal(lines, parts.lines()) {
			t.Fatalf("%q split at %d gives other lines", out, split)
		}
		if len(lines) > tailLines {
			t.Fatalf("%d lines", len(lines))
		}
		for _, l := range lines {
			if !utf8.ValidString(l) || len(l) > lineBytes+len("…") || strings.ContainsAny(l, "\x1b\r\n\x00\x7f") {
				t.Fatalf("%q is not fit for an error's text", l)
			}
		}
	})
}
