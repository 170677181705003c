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
//	run(res.ID) // by its ID: a tag may be moved at any time
//
// A [Store] is where images live: a Docker Engine (package docker), a directory
// (package oci), or whatever implements its two methods. A [BuildFunc] makes an
// image; the stores have ready-made ones, and [Command] makes one of any program.
//
// # What Ensure does
//
// It looks for the image, without any lock: if it is there, that is all. Else it
// takes the image's lock, looks again (another process may have built it
// meanwhile), builds if the image is still missing, looks whether it is there
// now, and lets the lock go. Whoever finds the lock taken waits until it is let
// go, and looks with no lock in hand; when the image appears, all who wait for it
// go on at the same time.
//
// # What it keeps
//
// The cache directory has the locks (image-locks), how the last attempt at each
// image ended (outcomes), and the logs of the last builds (build-logs). By default
// it belongs to the store, not to the checkout: see [DefaultDir]. Some small files
// an image are left there for good; a directory that nobody has open may be
// removed as a whole.
//
// # Crashes
//
// The kernel lets go of the locks of a process that dies. One of those who wait
// takes over, after what the dead one's build has started has ended. An attempt
// that was killed or cancelled has no outcome. A tag is only ever what the store
// makes of it; no file here says that an image exists.
package imagecache
