package docker

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/client"
)

// dockerDir gives the test a directory of the docker command's files, and an
// environment that names nothing else.
func dockerDir(t testing.TB, config string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "DOCKER_API_VERSION"} {
		t.Setenv(name, "")
	}
	t.Setenv("DOCKER_CONFIG", dir)
	if config != "" {
		writeFiles(t, dir, map[string]string{"config.json": config})
	}
	return dir
}

// contextFile is the path of a file of the context of that name, below contexts/.
func contextFile(kind, name, file string) string {
	sum := sha256.Sum256([]byte(name))
	return "contexts/" + kind + "/" + hex.EncodeToString(sum[:]) + "/" + file
}

func writeContext(t testing.TB, dir, name, host string) {
	t.Helper()
	b, _ := json.Marshal(map[string]any{"Name": name, "Metadata": map[string]any{},
		"Endpoints": map[string]any{"docker": map[string]any{"Host": host, "SkipTLSVerify": false}}})
	writeFiles(t, dir, map[string]string{contextFile("meta", name, "meta.json"): string(b)})
}

func TestTheEngineIsFoundInTheOrderThatTheDockerCommandHas(t *testing.T) {
	for name, c := range map[string]struct {
		config, env, host, option, want string
	}{
		"nothing":             {want: client.DefaultDockerHost},
		"current":             {config: `{"auths":{},"currentContext":"one"}`, want: "unix:///one"},
		"current is default":  {config: `{"currentContext":"default"}`, want: client.DefaultDockerHost},
		"empty file":          {config: "\n", want: client.DefaultDockerHost},
		"no current":          {config: `{"credsStore":"x"}`, want: client.DefaultDockerHost},
		"DOCKER_CONTEXT":      {config: `{"currentContext":"one"}`, env: "two", want: "unix:///two"},
		"DOCKER_CONTEXT only": {env: "two", want: "unix:///two"},
		"back to default":     {config: `{"currentContext":"one"}`, env: "default", want: client.DefaultDockerHost},
		"DOCKER_HOST":         {config: `{"currentContext":"one"}`, env: "two", host: "unix:///three", want: "unix:///three"},
		"despite rubbish":     {config: `rubbish`, env: "no such", host: "unix:///three", want: "unix:///three"},
		"WithHost":            {config: `{"currentContext":"one"}`, host: "unix:///three", option: "unix:///four", want: "unix:///four"},
		"odd name":            {env: "../../x y\n\u00e9", want: "unix:///odd"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := dockerDir(t, c.config)
			writeContext(t, dir, "one", "unix:///one")
			writeContext(t, dir, "two", "unix:///two")
			writeContext(t, dir, "../../x y\n\u00e9", "unix:///odd")
			t.Setenv("DOCKER_CONTEXT", c.env)
			t.Setenv("DOCKER_HOST", c.host)
			s := &Store{host: c.option}
			if err := s.connect(); err != nil || s.api.DaemonHost() != c.want || s.host != c.want {
				t.Errorf("host %q, %v, want %q", s.host, err, c.want)
			}
		})
	}
}

func TestAContextThatCannotBeUsedIsAnErrorAndNoOtherEngineIsTaken(t *testing.T) {
	meta := func(s string) map[string]string { return map[string]string{contextFile("meta", "c", "meta.json"): s} }
	for name, c := range map[string]struct {
		config  string
		files   map[string]string
		missing bool
	}{
		"missing":           {missing: true},
		"config no JSON":    {config: `{"currentContext": "c`},
		"config no object":  {config: `["c"]`},
		"name no string":    {config: `{"currentContext": 7}`},
		"config too large":  {config: `{"currentContext":"c"}` + strings.Repeat(" ", contextFileLimit)},
		"empty":             {files: meta("")},
		"cut short":         {files: meta(`{"Endpoints":{"docker":{"Host":"unix:///x`)},
		"no endpoint":       {files: meta(`{"Name":"c","Endpoints":{"kubernetes":7}}`)},
		"null endpoint":     {files: meta(`{"Endpoints":{"docker":null}}`)},
		"no host":           {files: meta(`{"Endpoints":{"docker":{"SkipTLSVerify":true}}}`)},
		"host no address":   {files: meta(`{"Endpoints":{"docker":{"Host":"somewhere"}}}`)},
		"host for terminal": {files: meta(`{"Endpoints":{"docker":{"Host":"unix:///\u001b[2J"}}}`)},
		"host no UTF-8":     {files: meta("{\"Endpoints\":{\"docker\":{\"Host\":\"unix:///\xff\"}}}")},
		"host of type":      {files: meta(`{"Endpoints":{"docker":{"Host":["unix:///x"]}}}`)},
		"too large":         {files: meta(strings.Repeat(" ", contextFileLimit) + `{"Endpoints":{"docker":{"Host":"unix:///x"}}}`)},
		"a directory":       {files: map[string]string{contextFile("meta", "c", "meta.json/"): ""}},
		"a loop":            {files: meta("-> meta.json")},
		"ca rubbish": {files: map[string]string{contextFile("meta", "c", "meta.json"): `{"Endpoints":{"docker":{"Host":"tcp://127.0.0.1:1"}}}`,
			contextFile("tls", "c", "docker/ca.pem"): "rubbish"}},
		"cert without key": {files: map[string]string{contextFile("meta", "c", "meta.json"): `{"Endpoints":{"docker":{"Host":"tcp://127.0.0.1:1"}}}`,
			contextFile("tls", "c", "docker/cert.pem"): "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.config == "" {
				c.config = `{"currentContext":"c"}`
			}
			writeFiles(t, dockerDir(t, c.config), c.files)
			s, err := Open(t.Context())
			var eerr *EngineError
			if s != nil || !errors.As(err, &eerr) || !errors.Is(err, ErrBadEngineContext) || errors.Is(err, ErrUnreachable) {
				t.Errorf("got %v", err)
			}
			if errors.Is(err, fs.ErrNotExist) != c.missing {
				t.Errorf("is ErrNotExist: %v", !c.missing)
			}
			if text := fmt.Sprint(err); strings.ContainsAny(text, "\x1b\n") || len(text) > 1000 {
				t.Errorf("text %q", text)
			}
			t.Log(err)
		})
	}
	t.Run("a pipe", func(t *testing.T) {
		dir := dockerDir(t, "")
		fifo(t, filepath.Join(dir, "config.json"))
		if _, err := Open(t.Context()); !errors.Is(err, ErrBadEngineContext) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no home", func(t *testing.T) {
		dockerDir(t, "")
		t.Setenv("DOCKER_CONFIG", "")
		for _, home := range []string{"/nonexistent/home", os.DevNull} {
			t.Setenv("HOME", home)
			if c, err := currentContext(); err != nil || c.name != "" {
				t.Errorf("%s: got %+v, %v", home, c, err)
			}
		}
	})
}

func TestAContextWhoseEngineIsNotThereOrSpeaksSSHIsUnreachableAndNamed(t *testing.T) {
	for host, want := range map[string]string{
		"unix:///nonexistent/docker.sock":   `on unix:///nonexistent/docker.sock (context "c"): engine is not reachable`,
		"tcp://me:secret@127.0.0.1:1":       `on tcp://me:xxxxx@127.0.0.1:1 (context "c"): engine is not reachable`,
		"ssh://me:secret@host.example:2222": `on ssh://me:xxxxx@host.example:2222 (context "c"): engine is not reachable: only the docker command speaks ssh`,
	} {
		writeContext(t, dockerDir(t, `{"currentContext":"c"}`), "c", host)
		_, err := Open(t.Context())
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v", err)
		}
	}
}

func TestAnEngineIsReachedThroughAContext(t *testing.T) {
	direct := realEngine(t)
	want, err := direct.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !isSocket(direct.host) {
		t.Skip("the engine is not reached by a socket")
	}
	ref := newRef(t, direct)
	check := func(t *testing.T) {
		t.Helper()
		s, err := Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if got, err := s.Identity(t.Context()); err != nil || got != want || s.via != "colima" {
			t.Errorf("identity %q, %v, want %q; context %q", got, err, want, s.via)
		}
		mustBuild(t, s, ref, "FROM scratch\nCOPY Dockerfile /\n")
	}
	t.Run("files", func(t *testing.T) {
		writeContext(t, dockerDir(t, `{"currentContext":"colima"}`), "colima", direct.host)
		t.Setenv("DOCKER_CERT_PATH", "/nonexistent") // is not for contexts
		check(t)
	})
	t.Run("links", func(t *testing.T) {
		real := t.TempDir()
		writeFiles(t, real, map[string]string{"config.json": `{"currentContext":"colima"}`})
		writeContext(t, real, "colima", direct.host)
		writeFiles(t, dockerDir(t, ""), map[string]string{
			"config.json": "-> " + real + "/config.json", "contexts": "-> " + real + "/contexts"})
		check(t)
	})
	t.Run("command", func(t *testing.T) {
		docker, err := exec.LookPath("docker")
		if err != nil {
			t.Skip("there is no docker command")
		}
		dockerDir(t, "")
		for _, args := range [][]string{{"create", "colima", "--docker", "host=" + direct.host}, {"use", "colima"}} {
			cmd := exec.Command(docker, append([]string{"context"}, args...)...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("docker context %q: %v\n%s", args, err, out)
			}
		}
		check(t)
	})
}

// selfSigned returns a certificate for 127.0.0.1 and its key.
func selfSigned(t testing.TB) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, DNSNames: []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	c, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func TestTheCertificatesOfAContextAreUsed(t *testing.T) {
	cert, key := selfSigned(t)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	srv := httptest.NewUnstartedServer(&fakeEngine{})
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	_, port, _ := strings.Cut(srv.Listener.Addr().String(), ":")
	other, _ := selfSigned(t)
	for name, c := range map[string]struct {
		ca       []byte
		anonym   bool
		insecure bool
		host     string
		ok       bool
	}{
		"all":            {ca: cert, host: "localhost", ok: true},
		"wrong CA":       {ca: other, host: "localhost"},
		"no CA":          {host: "localhost"},
		"wrong name":     {ca: cert, host: "127.0.0.1"},
		"no certificate": {ca: cert, anonym: true, host: "localhost"},
		"skip":           {insecure: true, host: "127.0.0.1", ok: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := dockerDir(t, `{"currentContext":"c"}`)
			files := map[string]string{contextFile("meta", "c", "meta.json"): fmt.Sprintf(
				`{"Endpoints":{"docker":{"Host":"tcp://%s:%s","SkipTLSVerify":%v}}}`, c.host, port, c.insecure)}
			if c.ca != nil {
				files[contextFile("tls", "c", "docker/ca.pem")] = string(c.ca)
			}
			if !c.anonym {
				files[contextFile("tls", "c", "docker/cert.pem")] = string(cert)
				files[contextFile("tls", "c", "docker/key.pem")] = string(key)
			}
			writeFiles(t, dir, files)
			s, err := Open(t.Context())
			if (err == nil) != c.ok {
				t.Errorf("got %v", err)
			}
			if s != nil {
				s.Close()
			}
		})
	}
}

func TestASocketNeedsNoCertificatesWhateverTheEnvironmentSays(t *testing.T) {
	s := realEngine(t)
	if !isSocket(s.host) {
		t.Skip("the engine is not reached by a socket")
	}
	t.Setenv("DOCKER_CERT_PATH", t.TempDir())
	realEngine(t, WithHost(s.host))
}

func FuzzContext(f *testing.F) {
	f.Add([]byte(`{"currentContext":"c","Endpoints":{"docker":{"Host":"unix:///x","SkipTLSVerify":true}}}`))
	f.Add([]byte(`{"Endpoints":{"docker":{"Host":"tcp://me:pw@h:1/p"}}}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parseConfig(b)
		host, _, err := parseContext(b)
		if (err == nil) != (host != "") {
			t.Fatalf("host %q, %v", host, err)
		}
		if host != printable(host) {
			t.Fatalf("host %q", host)
		}
		if _, err := client.ParseHostURL(host); host != "" && err != nil {
			t.Fatalf("host %q: %v", host, err)
		}
	})
}
