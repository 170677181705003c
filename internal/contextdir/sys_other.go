//go:build !unix

package contextdir

const openFlags = 0
