package locktest

// Promises returns the sentences of all promises.
func Promises() []string {
	var names []string
	for _, p := range promises {
		names = append(names, p.name)
	}
	return names
}
