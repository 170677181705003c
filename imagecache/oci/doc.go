// Package oci keeps images in a directory: the store for hosts on which no
// container engine runs.
//
// The directory is an OCI image layout (oci-layout, index.json, blobs/sha256),
// so skopeo, crane and everything else that reads layouts can use the images;
// what they call an image is [RefName] of its reference. Beside it stands
// .imagelock, which is ours:
//
//	tags/<sha256 of the reference>   one small file an image: the truth
//	changes/                         changes that are durable but not yet visible
//	untagged/<digest>                images whose tag has moved on, and which are kept
//	garbage/<digest>                 blobs to be looked at by the next removal
//	index.state                      which index.json the tags are known to match
//	identity                         the random name of the store
//	locks/, tmp/
//	pending                          keeps away the first version of this package
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
// Blobs of an unfinished change stay until the next removal; they are used again
// if the image is built again before.
//
// # Removal
//
// [Store.RemoveImage] and [Store.Remove] give back the disk: they delete the blobs of
// an image that has lost its last name, and what dead processes have left. What
// anything refers to stays: another image; an entry of index.json, whoever made it; a
// change that is pending; an image whose tag has moved on to another, which somebody
// may still use, and which goes only when it is removed by its ID. So does what an
// addition relies on that is under way: it pins the blobs that it has found, and
// never loses them. Blobs that were never an image's here, such as those that another
// tool has left, are not touched.
//
// A removal keeps the index's lock while it reads the manifests of all images, for
// the first time in a process; later it reads only those that are new.
//
// # Several processes
//
// Any number of processes may have the store open. Who holds the index's lock
// carries out the pending changes of all (but no removals), so that eight processes which add
// images at once write index.json fewer times than they add images. What that
// costs grows with their number: less than a millisecond at a few hundred, some
// fifteen at twenty thousand.
//
// Programs that do not know the lock (crane, skopeo) may add to the layout while
// nobody else changes it: their entries are kept in index.json but are not visible
// to Probe. An entry under a name that this store has tagged is replaced by the
// store's own.
package oci
