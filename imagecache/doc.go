// Package imagecache builds each container image once, however many goroutines
// and processes ask for it at the same time.
//
//	cache, err := imagecache.Open(ctx, store)
//	…
//	defer cache.Close()
//	res, err := cache.Ensure(ctx, imagecache.Image{Tag: "app:v1", Build: build})
//	if err != nil {
//		return err
//	}
//	defer res.Release() // until then nobody removes it
//	run(res.ID)         // by its ID: a tag may be moved at any time
//
// A [Store] is where images live: a Docker Engine (package docker), a directory
// (package oci), or whatever implements its two methods, and more if it can
// ([ManyProber], [Remover], [BuildCacheTrimmer]). A [BuildFunc] makes an image; the
// stores have ready-made ones, and [Command] makes one of any program.
//
// # What Ensure does
//
// It looks for the image, without the image's lock: if it is there, that is all. Else
// it takes the lock, looks again (another process may have built it meanwhile),
// builds if the image is still missing, looks whether it is there now, and lets the
// lock go. Whoever finds the lock taken waits until it is let go, and looks with no
// lock in hand; when the image appears, all who wait for it go on at the same time.
//
// A build begins when it has one of the host's slots ([WithSlots]), which is the last
// thing it waits for. If it fails, everybody who waited for it is given its error
// ([*BuildError]), and so is who comes a moment later ([WithFailureMemory]).
//
// # Plans
//
// An image may stand on others ([Image].Parents). [Cache.EnsureAll] takes all of a
// plan at once: parents first, as much at a time as there are slots, and what one
// process builds no other does. What is to be done with the images is done while
// others are still being built ([Use]).
//
// # Freshness
//
// By default a tag that is there is good enough. An image that names the digest of
// its inputs ([Image].Inputs, package inputs) is built again, once, when it was made
// of others, or stands on another parent than it was built on.
//
// # Leases and removal
//
// What Ensure returns is leased: by the image's ID, so that a tag may move, and until
// [Result.Release]. [Cache.Remove], [Cache.Prune] and [WithBudget] take only what this
// package built and nobody leases, builds or stands on. They wait for nobody.
//
// # Looking on
//
// An [Observer] is told what happens; package progress draws it. [Cache.Follow] streams
// the log of a build, whichever process makes it.
//
// # How many build at a time
//
// A build takes a slot when it has all else that it waits for, and keeps it while it
// builds: so many run at the same time over all processes of the host that use the
// cache directory ([WithSlots], by default one a CPU). Whoever waits for one is
// served in the order of arrival; a crash frees its slot.
//
// # Who waits sees what is going on
//
// [Cache.Follow] streams the log of the build that is running, in whatever process,
// and an [Observer] is told of the steps of this process's own.
//
// # What it keeps
//
// The cache directory has the locks (image-locks), how the last attempt at each image
// ended (outcomes), the logs of the last builds (build-logs), what is known of the
// images that were built here and when they were used last (built-images), and what
// was found where in the store (seen). By default it belongs to the store, not to the
// checkout: see [DefaultDir]. Some small files an image are left there for good; a
// directory that nobody has open may be removed as a whole. Then the images in the
// store are nobody's: they are used, and never removed.
//
// # Crashes
//
// The kernel lets go of the locks of a process that dies, its leases and slots among
// them. One of those who wait takes over, after what the dead one's build has started
// has ended. An attempt that was killed or cancelled has no outcome. A tag is only ever
// what the store makes of it; no file here says that an image exists.
package imagecache
