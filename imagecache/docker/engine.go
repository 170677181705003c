package docker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
	"time"

	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/versions"
)

// engine is what is known of the engine since Open.
type engine struct {
	platform platform // its own
	podman   bool
	rootless bool
	// old engines have a frontend that expands no variables in mounts.
	old bool
	// plain engines move a name in one step, and know an image by its config:
	// for which platform it is can't change.
	plain bool
	// confirm are the pauses before further looks for a name that was not
	// found. See [pauses].
	confirm []time.Duration
}

// meet asks the engine what it is.
func (s *Store) meet(ctx context.Context) (engine, error) {
	version, err := s.api.ServerVersion(ctx)
	if err != nil {
		return engine{}, err
	}
	info, err := s.api.Info(ctx)
	if err != nil {
		return engine{}, err
	}
	e := engine{platform: platform{os: version.Os, arch: version.Arch}.normal()}
	if e.platform.os == "" || e.platform.arch == "" {
		e.platform = platform{os: info.OSType, arch: info.Architecture}.normal()
	}
	for _, c := range version.Components {
		e.podman = e.podman || strings.HasPrefix(c.Name, "Podman")
	}
	for _, o := range info.SecurityOptions {
		e.rootless = e.rootless || o == "name=rootless" || strings.HasPrefix(o, "name=rootless,")
	}
	e.old = !e.podman && version.APIVersion != "" && versions.LessThan(version.APIVersion, "1.42")
	e.confirm = pauses(info, e.podman)
	e.plain = e.confirm == nil
	s.images.Store(int64(info.Images))
	return e, nil
}

// pauses returns how often, and after which pauses, to look again for a name that
// was not found. Docker's graph-driver stores move a name in one step: one look
// is enough. The containerd store removes a name before it sets it anew, so that
// a look may fall between; of others we don't know.
func pauses(info system.Info, podman bool) []time.Duration {
	if podman || info.Driver == "" {
		return []time.Duration{10 * time.Millisecond}
	}
	for _, kv := range info.DriverStatus {
		if kv[0] == "driver-type" && strings.HasPrefix(kv[1], "io.containerd.snapshotter.") {
			return []time.Duration{10 * time.Millisecond, 30 * time.Millisecond}
		}
	}
	return nil
}

// Identity names the engine by its ID and its root directory, so that all who
// reach one engine find one name, whatever way they came: two engines of a host
// may share an ID (Docker 20.10) but no root directory. Podman has a new ID for
// everybody who asks and is named by host and root directory.
//
// It asks the engine and returns within 20 seconds. Its error is an
// [*EngineError].
func (s *Store) Identity(ctx context.Context) (string, error) {
	ctx, cancel := limit(ctx, s.requestLimit)
	defer cancel()
	info, err := s.api.Info(ctx)
	if err != nil {
		return "", s.fail(ctx, "identify", "", err)
	}
	if s.engine.podman {
		return "podman-" + hash(info.Name, info.DockerRootDir), nil
	}
	return "docker-" + hash(info.ID, info.DockerRootDir), nil
}

// hash is short enough for a directory's name, and too long for an accident.
func hash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// Exposure is empty if only this user's processes reach the engine. Otherwise it
// says how others may, for people: their builds take part in the same locks only
// if they share the lock directory.
func (s *Store) Exposure() string {
	scheme, addr, _ := strings.Cut(s.host, "://")
	switch scheme {
	case "unix":
		if s.engine.rootless || ownSocket(addr) {
			return ""
		}
		return "rootful engine socket " + s.host
	case "npipe":
		return "engine pipe " + s.host
	}
	return "remote engine " + s.host
}

// ownSocket is true if nobody but this user (and root) may connect to path.
func ownSocket(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().Perm()&0o022 == 0 && ownedByUs(fi)
}
