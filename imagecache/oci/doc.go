// Package oci keeps images in a directory: the store for hosts on which no
// container engine runs.
//
// The directory is an OCI image layout (oci-layout, index.json, blobs/sha256),
// so skopeo, crane and everything else that reads layouts can use the images;
// what they call an image is [RefName] of its reference. Beside it stands
// .imagelock, which is ours:
//
//	tags/<sha256 of the reference>   one small file an image: the truth
//	pending/                         changes that are durable but not yet visible
//	index.state                      which index.json the tags are known to match
//	identity                         the random name of the store
//	locks/, tmp/
//
// index.json is derived from the tags. It is kept up to date by every change,
// but it is never read to answer [Store.Probe], so that a probe costs the same
// with ten images and with fifty thousand.
//
// # Crashes
//
// A change first makes its blobs durable, then a pending file, then, under the
// lock of the index, renames that file to the tag and a new index.json over the
// old. Whoever is killed, whenever: each tag is the old one or the new one and its
// image is complete, index.json is valid and that of an earlier or the present
// state, and the next change, or the next [Open], brings it up to date.
// Blobs of an unfinished change stay; they are used again when the image is
// built again. Nothing collects unreferenced blobs yet.
//
// # Several processes
//
// Any number of processes may have the store open. Who holds the index's lock
// carries out the pending changes of all, so that eight processes which add
// images at once write index.json fewer times than they add images. What that
// costs grows with their number: less than a millisecond at a few hundred, some
// fifteen at twenty thousand.
//
// Programs that do not know the lock (crane, skopeo) may add to the layout while
// nobody else changes it: their entries are kept in index.json but are not visible
// to Probe. An entry under a name that this store has tagged is replaced by the
// store's own.
package oci
