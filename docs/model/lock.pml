/*
 * The lock on a file: acquire, the inode check, release, waiting, collecting, and
 * kill -9 at any step. README.md says what is modelled and what is not; the
 * script check runs it, and the mutants it must reject.
 *
 * A step of a process is one system call. Between any two of them any other
 * process may run, and the process itself may be killed.
 */

#ifndef LOCKERS
#define LOCKERS 3	/* processes of ours */
#endif
#ifndef SHARERS
#define SHARERS 0	/* how many of them want it shared */
#endif
#ifndef ROUNDS
#define ROUNDS 1	/* how often each of them takes the lock */
#endif
#ifndef COLLECTORS
#define COLLECTORS 1	/* each looks at the file once */
#endif
#ifndef CRASHES
#define CRASHES 1	/* how often one of all these is killed; another starts in its place */
#endif
#ifndef FOREIGN
#define FOREIGN 0	/* 1: there is a flock(1), too, which knows no check */
#endif
#ifndef INODES
#define INODES 6
#endif
/*
 * Waiting. Without EVENTS who waits may try again at any time: whatever wakes him,
 * he can do no more than that. With EVENTS he sleeps until one comes; with TIMER,
 * too, until one comes or not. With KEEP_OPEN he keeps the file open between his
 * tries; without, he opens it for reading each time.
 */

#define STRANGER (LOCKERS+COLLECTORS)
#define PROCESSES (LOCKERS+COLLECTORS+FOREIGN)

#define NONE 0		/* no file, no descriptor, no lock */
#define EX 1
#define SH 2

/*
 * The kernel. An inode is a number from 1 on. It lives while it has a name or an
 * open descriptor; then its number is given out anew.
 */
byte path;			/* the inode at the lockfile's path */
byte refs[INODES+1];		/* open descriptors */
bit ex[INODES+1];		/* it is locked exclusively */
byte sh[INODES+1];		/* how many share it */

/* What each process has in the kernel. */
byte fd[PROCESSES];		/* the inode its descriptor is of */
byte lk[PROCESSES];		/* the lock the descriptor has */
#ifdef EVENTS
bit rw[PROCESSES];		/* it is open for writing: its close is an event */
byte beacon[PROCESSES];		/* a descriptor whose close wakes those who wait */
byte watch[PROCESSES];		/* the inode whose events he hears */
bit ev[PROCESSES];		/* he has heard one */
#endif

bit killed[PROCESSES];		/* makes no further step of its own */
bit done[PROCESSES];
byte finished;			/* lockers that are done */

/* Who believes to hold the lock. */
byte in[PROCESSES];
byte holders, sharers;

#define grantable(i, how) (!ex[i] && (how == SH || sh[i] == 0))

#ifdef EVENTS
inline emit(i) {
	j = 0;
	do
	:: j < PROCESSES ->
		if
		:: watch[j] == i && i != NONE -> ev[j] = 1
		:: else
		fi;
		j++
	:: else -> break
	od;
	j = 0
}

/* With an inode that nobody can reach any more its watches end. */
inline reap(i) {
	if
	:: i != NONE && refs[i] == 0 && path != i ->
		j = 0;
		do
		:: j < PROCESSES ->
			if
			:: watch[j] == i -> watch[j] = NONE; ev[j] = 1
			:: else
			fi;
			j++
		:: else -> break
		od;
		j = 0
	:: else
	fi
}
#else
#define emit(i) skip
#define reap(i) skip
#endif

/* open(2). A missing file is made apart and linked into its place. */
inline open_file(write) {
	do
	:: atomic { path != NONE ->
			fd[me] = path;
			refs[path]++;
#ifdef EVENTS
			rw[me] = write
#endif
		}
		break
	:: atomic { path == NONE ->
			j = 1;
			do
			:: refs[j] > 0 -> j++
			:: else -> break
			od;
			assert(j <= INODES);	/* else INODES is too small */
			path = j;
			j = 0
		}
	od
}

inline take(how) {
	lk[me] = how;
	if
	:: how == EX -> ex[fd[me]] = 1
	:: else -> sh[fd[me]]++
	fi
}

inline drop() {
	if
	:: lk[me] == EX -> ex[fd[me]] = 0
	:: lk[me] == SH -> sh[fd[me]]--
	:: else
	fi;
	lk[me] = NONE
}

inline unlock_file() { atomic { drop() } }

/* close(2). If the descriptor is locked yet, the event comes before that ends. */
inline close_file() {
#ifdef EVENTS
	if
	:: atomic { lk[me] != NONE && rw[me] -> emit(fd[me]) }
	:: atomic { lk[me] == NONE && rw[me] -> emit(fd[me]); rw[me] = 0 }
	:: atomic { !rw[me] -> skip }
	fi;
#endif
	atomic {
		drop();
		if
		:: fd[me] != NONE ->
			refs[fd[me]]--;
			reap(fd[me]);
			fd[me] = NONE
		:: else
		fi;
#ifdef EVENTS
		rw[me] = 0
#endif
	}
}

#ifdef EVENTS
inline close_beacon() {
	atomic {
		if
		:: beacon[me] != NONE ->
			emit(beacon[me]);
			refs[beacon[me]]--;
			reap(beacon[me]);
			beacon[me] = NONE
		:: else
		fi
	}
}

/* It opens for writing; only who has just got the lock by a descriptor that is
   not. */
inline open_beacon() {
	atomic {
		beacon[me] = path;
		if
		:: path != NONE -> refs[path]++
		:: else
		fi
	}
}
#endif

/* Here is what it is all about. */
inline enter(how) {
	atomic {
		in[me] = how;
		if
		:: how == EX -> holders++
		:: else -> sharers++
		fi;
		assert(holders <= 1 && (holders == 0 || sharers == 0))
	}
}

inline quit() {
	if
	:: in[me] == EX -> holders--
	:: in[me] == SH -> sharers--
	:: else
	fi;
	in[me] = NONE
}

/* What the kernel does for a process that was killed, in any order. */
inline die() {
#ifdef EVENTS
	atomic { killed[me] = 0; quit(); watch[me] = NONE; ev[me] = 0 }
	if
	:: true -> close_file(); close_beacon()
	:: beacon[me] != NONE -> close_beacon(); close_file()
	fi
#else
	atomic { killed[me] = 0; quit() }
	close_file()
#endif
}

proctype Locker(byte me; byte mode) {
	byte rounds = ROUNDS;
	byte j;
	bit first;	/* the first try opens for writing, later ones do not */
start:
	{
		first = 1;
next:
		if
		:: rounds == 0 -> goto end
		:: else
		fi;
again:
#ifdef KEEP_OPEN
		if
		:: fd[me] == NONE -> open_file(1)
		:: else
		fi;
#else
		open_file(first);
#endif
#ifdef CHECK_BEFORE_LOCK
		if
		:: atomic { path != fd[me] -> skip }
			close_file();
			goto again
		:: atomic { path == fd[me] -> skip }
		fi;
#endif
		if
		:: atomic { !grantable(fd[me], mode) -> skip }
#ifdef KEEP_OPEN
			if
			:: first -> close_file()
			:: else
			fi;
#else
			close_file();
#endif
			goto refused
		:: atomic { grantable(fd[me], mode) -> take(mode) }
		fi;
#if !defined(NO_CHECK) && !defined(CHECK_BEFORE_LOCK)
		/* The inode of the locked descriptor against the path's. */
		if
		:: atomic { path != fd[me] -> skip }
			unlock_file();
			close_file();
			goto again
		:: atomic { path == fd[me] -> skip }
		fi;
#endif
#ifdef EVENTS
		atomic { watch[me] = NONE; ev[me] = 0 }
#ifndef NO_BEACON
		if
		:: !rw[me] -> open_beacon()
		:: else
		fi;
#endif
#endif
		enter(mode);
		atomic { quit() }
#ifndef CLOSE_WITHOUT_UNLOCK
		unlock_file();
#endif
		close_file();
#ifdef EVENTS
		close_beacon();
		first = 1;
#endif
		rounds--;
		goto next;

refused:
#ifdef EVENTS
		/* Listen to the file that is there now, then try once more. */
		if
		:: first || watch[me] == NONE || watch[me] != path ->
#ifdef KEEP_OPEN
			close_file();
#endif
			atomic { watch[me] = NONE; ev[me] = 0 }
			atomic { watch[me] = path }
#ifdef WATCH_TOO_LATE
			first = 0
#elif defined(WATCH_NEW_TOO_LATE)
			if
			:: first -> first = 0; goto again
			:: else
			fi
#else
			first = 0;
			goto again
#endif
		:: else
		fi;
		if
		:: atomic { ev[me] -> ev[me] = 0 }
#ifdef TIMER
		:: true
#endif
		fi;
#endif
		goto again;
end:
		atomic { done[me] = 1; finished++ }
	} unless {
		killed[me];
		die();
		goto start	/* another process comes in its place */
	}
}

/* Removes the file if nobody has it. */
proctype Collector(byte me) {
	bit looked;
	byte j, k;
start:
	{
		if
		:: looked || finished == LOCKERS -> goto end
		:: atomic { !looked && path != NONE ->
				looked = 1;
				fd[me] = path;
				refs[path]++
			}
		fi;
		if
		:: atomic { !grantable(fd[me], EX) -> skip }
			close_file();
			goto end
		:: atomic { grantable(fd[me], EX) -> take(EX) }
		fi;
#ifndef COLLECT_WITHOUT_CHECK
		if
		:: atomic { path != fd[me] -> skip }
			goto give_back
		:: atomic { path == fd[me] -> skip }
		fi;
#endif
#ifdef UNLINK_AFTER_UNLOCK
		unlock_file();
#endif
		atomic {	/* unlink(2), an event */
			k = path;
			path = NONE;
			emit(k);
			reap(k);
			k = NONE
		}
give_back:
		unlock_file();
		close_file();
end:
		done[me] = 1
	} unless {
		killed[me];
		die();
		goto start
	}
}

/* flock(1): waits in the kernel and locks whatever it has opened. */
proctype Stranger(byte me) {
	byte j;
	open_file(0);
	atomic { grantable(fd[me], EX) -> take(EX) }
	enter(EX);
	atomic { quit() }
	close_file();
	done[me] = 1
}

init {
	byte i, left = CRASHES;
	atomic {
		do
		:: i < LOCKERS -> run Locker(i, (i < SHARERS -> SH : EX)); i++
		:: else -> break
		od;
		do
		:: i < LOCKERS + COLLECTORS -> run Collector(i); i++
		:: else -> break
		od;
#if FOREIGN > 0
		run Stranger(STRANGER);
#endif
		i = 0
	}
	do
	:: atomic { left > 0 ->
			left--;
			do
			:: i < LOCKERS + COLLECTORS - 1 -> i++
			:: break
			od;
			if
			:: !done[i] && !killed[i] -> killed[i] = 1
			:: else
			fi;
			i = 0
		}
	:: break
	od
}

ltl all_have_had_it { <> (finished == LOCKERS) }
