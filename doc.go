// Package imagelock builds each container image once, however many processes
// ask for it at the same time.
package imagelock
