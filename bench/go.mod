module github.com/imagelock/imagelock/bench

go 1.26.0

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/cenkalti/backoff/v4 v4.3.0
	github.com/gofrs/flock v0.13.1
	github.com/imagelock/imagelock v0.0.0
	github.com/rogpeppe/go-internal v1.16.0
	github.com/werf/lockgate v0.2.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/google/uuid v1.3.0 // indirect
	github.com/spaolacci/murmur3 v1.1.0 // indirect
	go.uber.org/multierr v1.10.0 // indirect
	go.uber.org/zap v1.28.0 // indirect
	golang.org/x/crypto v0.7.0 // indirect
)

replace github.com/imagelock/imagelock => ../
