package imagecache

import "maps"

// MergeLabels returns the labels for the image that b makes: own, which are the
// builder's, and b.Labels. Where both have a label own's counts, unless it is one
// by which this package knows images. Neither map is changed.
func (b *Build) MergeLabels(own map[string]string) map[string]string {
	all := maps.Clone(b.Labels)
	if all == nil {
		all = map[string]string{}
	}
	for k, v := range own {
		if _, ours := b.Labels[k]; ours && (k == LabelReference || k == LabelInputs) {
			continue
		}
		all[k] = v
	}
	return all
}

// LabelledInputs returns what the labels of the image under ref, a normalised
// reference, say of its inputs, for [Presence].Inputs. It is empty if they don't
// speak of that image: what is built on an image inherits its labels.
func LabelledInputs(labels map[string]string, ref string) string {
	if labels[LabelReference] != ref {
		return ""
	}
	return labels[LabelInputs]
}
