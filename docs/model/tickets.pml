/*
 * The line of tickets: in which order processes that wait for one lock get it.
 * README.md says what is modelled and what is not; the script check runs it, and
 * the mutants it must reject.
 *
 * The lock itself is one here that excludes, as lock.pml shows; a try for it is
 * one step. All want it exclusively, once.
 */

#ifndef PROCESSES
#define PROCESSES 3
#endif
#ifndef CRASHES
#define CRASHES 0	/* how many are killed while they wait or hold, and do not come again */
#endif
#ifndef STOPS
#define STOPS 0		/* how many are stopped for ever while they wait */
#endif
/*
 * TIMER: who sleeps may also wake up without an event. PUSH: then, if the lock is
 * free and stays so, he takes the first ticket before his own out of the line.
 * The code does that after a second; here it may happen at any time.
 */

#define NOBODY 255
#define LOCKFILE 254
#define NOTHING 255

byte holder = NOBODY;		/* whose descriptor has the lock */
bit rings[PROCESSES];		/* its close is an event of the lockfile */

/* The ticket of each: its number, whether it lies in the line, whether it is locked. */
byte number[PROCESSES];
bit lies[PROCESSES];
bit live[PROCESSES];

byte watch[PROCESSES];		/* whose ticket is listened to, or LOCKFILE */
bit ev[PROCESSES];

bit killed[PROCESSES];
bit stopped[PROCESSES];
bit done[PROCESSES];
byte finished;

byte inside;			/* believe to hold the lock */
#ifdef ORDER
byte waits;			/* a bit for each who stands in line, not granted yet */
byte older[PROCESSES];		/* those who stood there when this one came */
#define come()	older[me] = waits
#define stand()	waits = waits | (1 << me)
#define go()	go_away()
inline go_away() {
	waits = waits & ~(1 << me);
	k = 0;
	do
	:: k < PROCESSES -> older[k] = older[k] & ~(1 << me); k++
	:: else -> break
	od;
	k = 0
}
#else
#define come()	skip
#define stand()	skip
#define go()	skip
#endif

/* n stands before me. Equal numbers are told apart by the rest of the name. */
#define ahead(n) (number[n] < number[me] || number[n] == number[me] && n < me)

inline emit(file) {
	j = 0;
	do
	:: j < PROCESSES ->
		if
		:: watch[j] == file -> ev[j] = 1
		:: else
		fi;
		j++
	:: else -> break
	od;
	j = 0
}

/* An unlink is an event, and the last one: the watch goes with the file. */
inline unlink_ticket(n) {
	lies[n] = 0;
	j = 0;
	do
	:: j < PROCESSES ->
		if
		:: watch[j] == n -> watch[j] = NOTHING; ev[j] = 1
		:: else
		fi;
		j++
	:: else -> break
	od;
	j = 0
}

/* behind = the nearest live ticket before mine; dead ones on the way are removed.
   Who has none yet (newcomer) looks at all. */
inline look_ahead(newcomer) {
	atomic {
		behind = NOBODY;
		k = 0;
		do
		:: k < PROCESSES ->
			if
			:: k != me && lies[k] && (newcomer || ahead(k)) && !(passed & (1 << k)) ->
				if
				:: !live[k] ->
#ifndef KEEP_DEAD
					unlink_ticket(k)
#else
					behind = k
#endif
				:: live[k] && (behind == NOBODY || number[k] > number[behind] || number[k] == number[behind] && k > behind) ->
					behind = k
				:: else
				fi
			:: else
			fi;
			k++
		:: else -> break
		od;
		k = 0
	}
}

/* put lays the ticket into its place: the file first, then its lock, between
   which others may take it for a dead one's and remove it. */
inline put() {
	do
	:: atomic { !lies[me] -> lies[me] = 1; live[me] = 0 }
	:: atomic { lies[me] -> live[me] = 1 }
		break
	od
}

inline draw() {
	atomic {
		number[me] = 1;
		come();
		k = 0;
		do
		:: k < PROCESSES ->
			if
			:: k != me && lies[k] && number[k] >= number[me] -> number[me] = number[k] + 1
			:: else
			fi;
			k++
		:: else -> break
		od;
		k = 0
	}
	put();
	atomic { stand() }
}

/* The lock is granted. */
inline granted() {
	inside++;
	assert(inside <= 1);
#ifdef ORDER
	assert((waits & older[me]) == 0);
#endif
	go()
}

/* What the kernel does for a killed one: the events first. */
inline die() {
	atomic {
		killed[me] = 0;
		watch[me] = NOTHING;
		ev[me] = 0;
		if
		:: in -> inside--; in = 0
		:: else
		fi;
		go()
	}
	atomic { if :: holder == me && rings[me] -> emit(LOCKFILE) :: else fi }
	atomic { if :: holder == me -> holder = NOBODY :: else fi }
	atomic { if :: live[me] -> emit(me) :: else fi }
	live[me] = 0
}

proctype Waiter(byte me) {
	byte behind = NOBODY, offered = NOBODY;
	byte passed;	/* those it has given up waiting for */
	byte j, k;
	bit in;
	{
		/* A newcomer overtakes nobody who stands in line. */
		atomic { come() }
		look_ahead(1);
#ifdef OVERTAKE
		behind = NOBODY;
#endif
		if
		:: behind != NOBODY -> goto stand
		:: else
		fi;
		if
		:: atomic { holder == NOBODY -> holder = me; rings[me] = 1; in = 1; granted() }
			goto inside_it
		:: atomic { holder != NOBODY -> skip }
		fi;
stand:
		draw();
look:
		/* Look, listen, and look again until it is the same. */
		if
		:: !lies[me] -> put()
		:: else
		fi;
		look_ahead(0);
		if
		:: behind == NOBODY && watch[me] != LOCKFILE ->
			atomic { watch[me] = LOCKFILE; ev[me] = 0 }
#ifdef LISTEN_TOO_LATE
			goto sleep
#endif
		:: behind != NOBODY && watch[me] != behind ->
			/* A ticket that has gone can't be listened to. */
			atomic {
				ev[me] = 0;
				if
				:: lies[behind] -> watch[me] = behind
				:: else -> watch[me] = NOTHING
				fi
			}
#ifdef LISTEN_TOO_LATE
			goto sleep;
#endif
			goto look
		:: else
		fi;
		if
		:: behind != NOBODY -> goto sleep
		:: else
		fi;
try:
#ifdef TICKET_IS_ENOUGH
		if
		:: atomic { true -> in = 1; granted() }
			goto inside_it
		fi;
#endif
		if
		:: atomic { holder == NOBODY -> holder = me; in = 1; granted() }
			goto got
		:: atomic { holder != NOBODY -> skip }
		fi;
sleep:
		if
		:: atomic { ev[me] -> ev[me] = 0 }
			goto look
#ifdef TIMER
		:: behind == NOBODY -> goto look
#ifndef PUSH
		:: behind != NOBODY -> goto look
#endif
#endif
#ifdef PUSH
		:: behind != NOBODY ->
			look_ahead(0);
			if
			:: behind == NOBODY -> goto look
			:: else
			fi;
			if
			:: atomic { holder != NOBODY -> offered = NOBODY }
				goto look
			:: atomic { holder == NOBODY -> holder = me; rings[me] = 1 }
			fi;
			/* It is free: say so to whose turn it is. */
			holder = NOBODY;
			atomic { emit(LOCKFILE) }
			atomic {
				/* the first of all before me */
				behind = NOBODY;
				k = 0;
				do
				:: k < PROCESSES ->
					if
					:: k != me && lies[k] && live[k] && ahead(k) && !(passed & (1 << k)) &&
					   (behind == NOBODY || number[k] < number[behind] || number[k] == number[behind] && k < behind) ->
						behind = k
					:: else
					fi;
					k++
				:: else -> break
				od;
				k = 0;
				if
				:: behind == NOBODY -> skip
				:: behind != NOBODY && offered != behind -> offered = behind
				:: behind != NOBODY && offered == behind ->
					/* It was told, and did not take it. It may put its
					   ticket back; this one goes past it. */
#ifndef FORGET_PASSED
					passed = passed | (1 << behind);
#endif
					unlink_ticket(behind);
					offered = NOBODY
				fi;
				behind = NOBODY
			}
			goto look
#endif
		fi;
got:
		rings[me] = 1;	/* a second descriptor, open for writing */
		/* The next one comes to the head of the line. */
		live[me] = 0;
		atomic { emit(me) }
inside_it:
		atomic { inside--; in = 0 }
		if
		:: atomic { holder == me -> holder = NOBODY }
		:: atomic { holder != me -> skip }
		fi;
#ifndef SILENT_RELEASE
		atomic { emit(LOCKFILE) }
#endif
		atomic {
			if
			:: lies[me] && number[me] > 0 -> unlink_ticket(me)
			:: else
			fi;
			watch[me] = NOTHING
		}
		atomic { done[me] = 1; finished++ }
	} unless {
		if
		:: killed[me] -> die()
		:: stopped[me] && holder != me && !in -> atomic { go() }
		fi;
		atomic { done[me] = 1; finished++ }
	}
}

init {
	byte i, kills = CRASHES, stops = STOPS;
	atomic {
		do
		:: i < PROCESSES -> watch[i] = NOTHING; run Waiter(i); i++
		:: else -> break
		od;
		i = 0
	}
	do
	:: atomic { kills > 0 || stops > 0 ->
			do
			:: i < PROCESSES - 1 -> i++
			:: break
			od;
			if
			:: done[i] || killed[i] || stopped[i] || !lies[i] && holder != i -> skip
			:: else ->
				if
				:: kills > 0 -> kills--; killed[i] = 1
				:: stops > 0 -> stops--; stopped[i] = 1
				fi
			fi;
			i = 0
		}
	:: break
	od
}

ltl all_have_had_it { <> (finished == PROCESSES) }
