package docker

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/client"

	"github.com/imagelock/imagelock/internal/contextdir"
)

// A context of the docker command names an engine: `docker context use` writes its
// name into config.json, and contexts/ has a directory for each, named by the
// hash of its name. What selects an engine is obeyed or refused, never passed
// over: another engine is another store.

// contextFileLimit bounds each file that is read for a context, in bytes.
// config.json holds credentials too, and may be of some length.
const contextFileLimit = 1 << 20

// systemContext is the docker command's name for the system's own engine.
const systemContext = "default"

// engineContext is a context of the docker command. The zero value is that of the
// system's own engine.
type engineContext struct {
	name, host string
	tls        *tls.Config // nil for none
}

// currentContext returns the context that the docker command would use.
func currentContext() (engineContext, error) {
	dir := configDir()
	name := os.Getenv("DOCKER_CONTEXT")
	if name == "" && dir != "" {
		path := filepath.Join(dir, "config.json")
		b, err := readConfig(path)
		if err == nil {
			name, err = parseConfig(b)
		}
		// HOME=/dev/null is how some say that there is none.
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return engineContext{}, badContext("", path, err)
		}
	}
	if name == "" || name == systemContext {
		return engineContext{}, nil
	}
	if dir == "" {
		return engineContext{}, badContext(name, "~/.docker", fs.ErrNotExist)
	}
	return readContext(filepath.Join(dir, "contexts"), name)
}

// configDir returns the directory of the docker command's files; empty for a user
// who can't have one.
func configDir() string {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	home, _ := os.UserHomeDir()
	if home == "" {
		if u, err := user.Current(); err == nil {
			home = u.HomeDir
		}
	}
	if home == "" {
		return ""
	}
	return filepath.Join(home, ".docker")
}

// readContext reads the context of that name. The name is never a part of a path.
func readContext(dir, name string) (engineContext, error) {
	sum := sha256.Sum256([]byte(name))
	id := hex.EncodeToString(sum[:])
	path := filepath.Join(dir, "meta", id, "meta.json")
	b, err := readConfig(path)
	if err != nil {
		return engineContext{}, badContext(name, path, err)
	}
	host, insecure, err := parseContext(b)
	if err != nil {
		return engineContext{}, badContext(name, path, err)
	}
	c := engineContext{name: name, host: host}
	if isSocket(host) {
		return c, nil
	}
	dir = filepath.Join(dir, "tls", id, "docker")
	if c.tls, err = readTLS(dir, insecure); err != nil {
		return engineContext{}, badContext(name, dir, err)
	}
	return c, nil
}

func badContext(name, path string, err error) error {
	var perr *fs.PathError
	if errors.As(err, &perr) {
		err = perr.Err // the path is said once
	}
	if name == "" {
		return fmt.Errorf("%w: %q: %w", ErrBadEngineContext, path, err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: there is no context %q (%q: %w)", ErrBadEngineContext, name, path, err)
	}
	return fmt.Errorf("%w: context %q: %q: %w", ErrBadEngineContext, name, path, err)
}

// parseConfig returns the name of the current context in a config.json, empty if
// it names none.
func parseConfig(b []byte) (string, error) {
	var config struct{ CurrentContext string }
	err := json.NewDecoder(bytes.NewReader(b)).Decode(&config)
	if err == io.EOF { // the docker command accepts an empty file
		err = nil
	}
	return config.CurrentContext, err
}

// parseContext returns what a context's meta.json says of its engine.
func parseContext(b []byte) (host string, insecure bool, err error) {
	var meta struct{ Endpoints map[string]json.RawMessage }
	if err := json.Unmarshal(b, &meta); err != nil {
		return "", false, err
	}
	var endpoint struct {
		Host          string
		SkipTLSVerify bool
	}
	if raw := meta.Endpoints["docker"]; raw != nil {
		if err := json.Unmarshal(raw, &endpoint); err != nil {
			return "", false, err
		}
	}
	if endpoint.Host == "" {
		return "", false, errors.New("it names no engine")
	}
	if _, err := client.ParseHostURL(endpoint.Host); err != nil || endpoint.Host != printable(endpoint.Host) {
		return "", false, fmt.Errorf("%q is no engine's address", clip(withoutPassword(endpoint.Host), 200))
	}
	return endpoint.Host, endpoint.SkipTLSVerify, nil
}

// readTLS returns the TLS settings of a context, nil if it has none.
func readTLS(dir string, insecure bool) (*tls.Config, error) {
	var pem [3][]byte
	found := insecure
	for i, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
		b, err := readConfig(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		pem[i], found = b, found || err == nil
	}
	if !found {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: insecure}
	if pem[0] != nil {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem[0]) {
			return nil, errors.New("ca.pem has no certificate")
		}
	}
	if pem[1] != nil || pem[2] != nil {
		pair, err := tls.X509KeyPair(pem[1], pem[2])
		if err != nil {
			return nil, fmt.Errorf("cert.pem and key.pem: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// readConfig reads a small regular file. Links are followed: these are files of
// the user's own, whom many keep elsewhere.
func readConfig(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return contextdir.ReadRegular(f, contextFileLimit)
}

// withTLS is like [client.WithTLSClientConfig] for settings that were read.
func withTLS(c *tls.Config) client.Opt {
	return client.WithHTTPClient(&http.Client{
		Transport:     &http.Transport{TLSClientConfig: c, MaxIdleConns: 6, IdleConnTimeout: 30 * time.Second},
		CheckRedirect: client.CheckRedirect,
	})
}

// isSocket is true for an address on this host, where there is no TLS.
func isSocket(host string) bool {
	return strings.HasPrefix(host, "unix://") || strings.HasPrefix(host, "npipe://")
}
