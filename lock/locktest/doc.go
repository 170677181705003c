// Package locktest tests an implementation of [lock.Locker]: one call runs every
// promise of that interface, with several processes, crashes, lost leases and
// fencing tokens. In the package of the implementation:
//
//	func TestPromises(t *testing.T) {
//		locktest.Run(t, locktest.Backend{
//			New: func(t *testing.T) string { return startServer(t).Addr() },
//			Open: func(ctx context.Context, addr string) (lock.Locker, func() error, error) {
//				c, err := mylock.Dial(ctx, addr)
//				return c, c.Close, err
//			},
//			Crash: 2 * time.Second, // the length of its leases
//			Lose: func(ctx context.Context, addr string, l lock.Locker, key string) error {
//				return l.(*mylock.Client).CutOff()
//			},
//		})
//	}
//
// No TestMain is needed. Each promise is a subtest with a sentence for a name, in
// a set of locks of its own. What does not apply to a backend is not run, and
// nothing is ever skipped. With -short there are fewer rounds of what goes wrong
// by chance.
//
// # How it knows
//
// That there are no two holders is seen by a referee in the test's process. Who is
// granted a lock tells it so and goes on when it has taken note; before he releases
// it he does so again. Two locks noted at the same time were therefore really held
// at the same time, whatever the processes' clocks say. Likewise a lost lock: when
// another has been granted it, the former holder is asked whether its context has
// ended. So what the kit rejects is wrong for sure. What it accepts may still be
// wrong in a way that needs an instant it did not hit; run it more than once.
//
// No promise depends on how fast a machine is but for [Backend].Prompt, a generous
// bound of what must not take long.
package locktest
