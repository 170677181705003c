package locktest

// promises are in the order in which it is best to mend what is broken.
var promises = []promise{
	{"a lock has the key and the mode it was asked for", checkAccessors, nil},
	{"every error is a lock.Error and brings no lock", checkErrors, nil},
	{"bad keys modes and options are refused and change nothing", checkBadInput, nil},
	{"a backend without shared mode says so", checkUnsupported, func(b Backend) bool { return b.ExclusiveOnly }},
	{"hostile keys work and are distinct", checkHostileKeys, nil},
	{"keys that contain each other are independent", checkNestedKeys, nil},

	{"an exclusive lock keeps everybody out", checkExclusive, nil},
	{"shared locks admit each other and keep exclusive ones out", checkShared, canShare},
	{"a shared lock is not upgraded in silence", checkUpgrade, canShare},
	{"shared tries do not refuse each other", checkSharedTries, canShare},
	{"processes and goroutines exclude each other", checkExclusiveStorm, nil},
	{"a storm in both modes has no two holders", checkMixedStorm, canShare},

	{"a try does not wait and says ErrHeld", checkTry, nil},
	{"the wait limit ends a wait and not before", checkWaitLimit, nil},
	{"the deadline of a context ends a wait", checkDeadline, nil},
	{"a cancelled wait ends at once with its own error and cause", checkCancel, nil},
	{"a context that has ended is refused even if the key is free", checkEnded, nil},
	{"the end of the wait's context does not touch the lock", checkContextBoundsTheWaitOnly, nil},
	{"a context that carries a lock is refused its key at once", checkReentry, nil},

	{"a release is idempotent and does not free a later lock", checkIdempotent, nil},
	{"a release frees one shared lock of several", checkSharedRelease, canShare},
	{"a release may come from any goroutine and from many at once", checkConcurrentRelease, nil},
	{"a release waits for nobody", checkReleaseWaitsForNobody, nil},
	{"a lock is not lost by its release", checkNotLostByRelease, nil},

	{"a release wakes a waiter", checkWakeUp, nil},
	{"a release wakes shared waiters together", checkSharedWakeUp, canShare},
	{"a waiter that gives up takes no wake-up with it", checkCancelledWakeUp, nil},
	{"an exclusive waiter that gives up lets shared ones join", checkGivenUpWriter, canShare},
	{"a lock that is granted at the deadline is returned or free", checkDeadlineRace, nil},
	{"waiters that give up leave the key obtainable", checkGivenUp, nil},
	{"every waiter of a long line is served", checkLongLine, nil},
	{"newcomers do not starve a waiter", checkStarvation, func(b Backend) bool { return !b.Unfair }},

	{"a killed holder frees its lock", checkKilledHolder, nil},
	{"a killed waiter holds nobody up", checkKilledWaiter, nil},
	{"killing processes in a storm stops nobody else", checkKilledStorm, nil},
	{"a stopped waiter does not keep others from a free lock", checkStoppedWaiter, canStop},
	{"a stopped holder keeps its lock or learns that it is lost", checkStoppedHolder, canStop},

	{"several keys are had all or none", checkAll, nil},
	{"any of several keys is had once", checkAny, nil},

	{"a lock is never lost", checkNeverLost, cannotLose},
	{"the context of a lost lock ends before another is granted", checkLostBeforeGranted, canLose},
	{"the release of a lost lock returns and frees nobody else's", checkReleaseOfLost, canLose},
	{"tokens grow with every grant", checkTokens, canLose},
	{"a Locker that was closed refuses or works but does not hang", checkClosed, nil},
}
