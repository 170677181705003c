package imagecache

import (
	"context"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
)

// Described returns a build function that does what build does and says what that
// is: of two described ones what counts is whether their parts are the same, not
// where in the program they were made. So a plan in which one tag is to be built in
// two ways is refused ([TwiceError]), although both ways are closures of the same
// code. The parts are only compared, and shown to nobody.
//
//	build := imagecache.Described(func(ctx context.Context, b *imagecache.Build) error {
//		return compile(ctx, dir, b)
//	}, "compile", dir)
//
// [Command] and the builders of this module's stores describe themselves.
func Described(build BuildFunc, parts ...string) BuildFunc {
	if build == nil {
		return nil
	}
	return described{build, joined(parts)}.run
}

// joined is a text that no other parts have.
func joined(parts []string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(strconv.Itoa(len(p)) + ":" + p)
	}
	return b.String()
}

// described is a build function with what it says of itself.
type described struct {
	build BuildFunc
	what  string
}

func (d described) run(ctx context.Context, b *Build) error {
	if answered(ctx, func() string { return d.what }) {
		return nil
	}
	return d.build(ctx, b)
}

// describe is what the command says of itself when it is asked.
func (c Command) describe() string {
	return "command\n" + joined([]string{absolute(c.Dir)}) + "\n" + joined(c.Args) + "\n" + joined(c.Env)
}

func absolute(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}

// question is the key of the context value that asks a build function what it does,
// instead of doing it: a *string for the answer.
type question struct{}

// answered answers the question, if ctx has one.
func answered(ctx context.Context, what func() string) bool {
	answer, asked := ctx.Value(question{}).(*string)
	if asked {
		*answer = what()
	}
	return asked
}

// description asks f what it does. Only functions that are known to answer are asked:
// another would build.
func description(f BuildFunc) (what string, ok bool) {
	if f == nil || !answering[codeName(f)] {
		return "", false
	}
	if err := f(context.WithValue(context.Background(), question{}, &what), nil); err != nil {
		return "", false
	}
	return what, true
}

// answering has the functions that answer, by their names: values of a method have one
// code, wherever they are made, which knows its receiver.
var answering = map[string]bool{codeName(described{}.run): true, codeName(Command{}.Build): true}

func codeName(f BuildFunc) string {
	return runtime.FuncForPC(reflect.ValueOf(f).Pointer()).Name()
}
