// Package dockerd starts Docker Engines that tests may hurt: they share nothing with
// the machine's. It does so on Linux only. What tests ask of the machine's is here too.
package dockerd
