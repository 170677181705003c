package process

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const statTail = " S 1 5 5 0 -1 4194560 10 0 0 0 1 2 0 0 20 0 1 0 987654 1 2 3"

func TestParseStatFindsTheStartWhateverTheName(t *testing.T) {
	for _, name := range []string{"sh", "", "tmux: server", "a) S 1 2", "((", ") ) (", "x\ny"} {
		comm, start, ok := parseStat([]byte("42 (" + name + ")" + statTail + "\n"))
		if !ok || comm != name || start != 987654 {
			t.Errorf("name %q: got %q, %d, %v", name, comm, start, ok)
		}
	}
	for _, bad := range []string{"", "42", "42 (sh", "42 sh) S", ")(", "42 (sh) S 1 2", "42 (sh)" + strings.Replace(statTail, "987654", "-1", 1)} {
		if _, _, ok := parseStat([]byte(bad)); ok {
			t.Errorf("%q was read as a process", bad)
		}
	}
}

func TestParseFlockReadsGrantedFlocksOnly(t *testing.T) {
	want := flockLine{pid: 8909, major: 0xfe, minor: 0x10, inode: 9977934}
	if l, ok := parseFlock("1: FLOCK  ADVISORY  WRITE 8909 fe:10:9977934 0 EOF"); !ok || l != want {
		t.Errorf("got %+v, %v", l, ok)
	}
	if l, ok := parseFlock("1: FLOCK  ADVISORY  READ 0 fe:10:9977934 0 EOF"); !ok || l.pid != 0 {
		t.Errorf("another namespace's: got %+v, %v", l, ok)
	}
	for _, line := range []string{
		"", "1:", "1: FLOCK", "1: -> FLOCK  ADVISORY  WRITE 8909 fe:10:9977934 0 EOF",
		"1: POSIX  ADVISORY  WRITE 8909 fe:10:9977934 0 EOF", "1: OFDLCK ADVISORY  READ -1 00:06:3 0 EOF",
		"1: FLOCK  ADVISORY  WRITE x fe:10:9977934 0 EOF", "1: FLOCK  ADVISORY  WRITE 1 fe:9977934 0 EOF",
		"1: FLOCK  ADVISORY  WRITE 1 zz:10:1 0 EOF",
	} {
		if l, ok := parseFlock(line); ok {
			t.Errorf("%q was read as %+v", line, l)
		}
	}
}

func TestTakersComparesDeviceAndInode(t *testing.T) {
	text := []byte(`1: FLOCK  ADVISORY  WRITE 11 fe:00:77 0 EOF
2: FLOCK  ADVISORY  READ 12 fe:01:77 0 EOF
3: -> FLOCK  ADVISORY  WRITE 13 fe:00:77 0 EOF
4: POSIX  ADVISORY  WRITE 14 fe:00:77 0 EOF
5: FLOCK  ADVISORY  READ 15 fe:00:77 0 EOF
6: FLOCK  ADVISORY  READ 16 fe:00:177 0 EOF`)
	if got := takers(text, 0xfe, 0, 77); !slices.Equal(got, []int{11, 15}) {
		t.Errorf("takers = %v, want [11 15]", got)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("sh", uint64(5), "")
	f.Add(") S (", uint64(1)<<63, "0 0 0")
	f.Fuzz(func(t *testing.T, name string, start uint64, tail string) {
		parseStat([]byte(name + tail)) // must not panic
		if strings.Contains(tail, ")") {
			return // the kernel writes no name there
		}
		text := fmt.Sprintf("1 (%s) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 %d %s", name, start, tail)
		comm, got, ok := parseStat([]byte(text))
		if !ok || comm != name || got != start {
			t.Fatalf("%q: got %q, %d, %v", text, comm, got, ok)
		}
	})
}

func FuzzParseLocks(f *testing.F) {
	f.Add("1: FLOCK  ADVISORY  WRITE 8909 fe:00:9977934 0 EOF\n", uint32(0xfe), uint32(0), uint64(9977934))
	f.Add("pos:\t0\nlock:\t1: FLOCK  ADVISORY  WRITE 8909 fe:00:9977934 0 EOF\n", uint32(0), uint32(1), uint64(2))
	f.Fuzz(func(t *testing.T, junk string, major, minor uint32, inode uint64) {
		takers([]byte(junk), major, minor, inode)
		fdinfoFlocks([]byte(junk))
		parseParent([]byte(junk))
		line := fmt.Sprintf("9: FLOCK  ADVISORY  WRITE 31 %02x:%02x:%d 0 EOF\n", major, minor, inode)
		if got := takers([]byte(junk+"\n"+line), major, minor, inode); len(got) == 0 || got[len(got)-1] != 31 {
			t.Fatalf("takers missed a line behind %q: %v", junk, got)
		}
		if got := fdinfoFlocks([]byte(junk + "\nlock:\t" + line)); len(got) == 0 || got[len(got)-1].inode != inode {
			t.Fatalf("fdinfo missed a line behind %q", junk)
		}
	})
}
