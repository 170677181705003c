package lock

// WithEvents is withEvents for the tests that use the package from outside.
var WithEvents = withEvents
