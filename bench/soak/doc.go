// Package soak proves the lock by long random trials with real processes.
//
// A trial starts a dozen processes that acquire, try and release a few keys in
// both modes, and kills and stops them at random instants. Each process says what
// it calls and what it is answered, with the time. From what they said the trial
// then checks, in this order of strength:
//
//   - No two hold intervals that exclude each other overlap.
//   - The history of each key is one that a readers-writer lock could have had
//     (linearizable, checked by porcupine), where a kill lets go of all that the
//     process had at some instant between the signal and its death.
//   - No key stays free while a process that lives and runs waits for it.
//   - No wait ends before its limit, and none long after.
//   - Processes that live through the trial end with as many descriptors as they
//     began with, and the dead leave no files in the directory.
//   - Afterwards the directory works as a new one does.
//
// It needs Linux: /proc tells what a stopped process holds, and a child
// lives no longer than its parent.
package soak
