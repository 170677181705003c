package lint

import (
	"fmt"
	"testing"
)

// finds tells whether the rule finds anything in the Dockerfile of two services.
func finds(t *testing.T, rule Code, text string) bool {
	t.Helper()
	findings, err := Check(File{Name: "F", Service: "api", Text: []byte(text)}, File{Name: "F", Service: "web", Text: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		if f.Code == rule {
			return true
		}
	}
	return false
}

// TestEachCommandThatInstallsIsKnown, and none that only looks like one.
func TestEachCommandThatInstallsIsKnown(t *testing.T) {
	const file = "FROM scratch\nRUN --mount=target=/src %s\nFROM scratch\nCOPY --from=0 / /\n"
	text := func(command string) string { return fmt.Sprintf(file, command) }
	for _, command := range []string{
		"npm ci", "npm install", "npm i", "pnpm install", "pnpm i", "bun install", "cd /src && npm ci --omit=dev", "yarn", "yarn install", "yarn --frozen-lockfile",
		"pip install -r requirements.txt", "pip3 install --no-cache-dir --requirement x", "uv sync", "uv  sync --frozen", "poetry install", "pipenv install", "pipenv sync",
		"bundle install", "composer install", "go mod download", "cargo fetch", "mvn -B dependency:go-offline", "./mvnw dependency:resolve", "mix deps.get", "dotnet restore",
		"apt install -y git", "apt-get install git", "apk add git", "apk --no-cache add git", "dnf install git", "microdnf -y install git", "yum -y install git",
		`["/usr/bin/apt-get", "install", "git"]`, "sh -c 'npm ci'", "(npm ci)", "npm ci;x", "npm ci&&x", "npm ci|x", "yarn && x", "yarn;x", "(yarn)", "x;npm ci", "x|npm ci", "/usr/bin/npm ci",
	} {
		if !installed(t, text(command)) {
			t.Errorf("%s is not found", command)
		}
	}
	for _, command := range []string{"npm run build", "npm cistern", "xnpm ci", "pip install x", "go mod tidy", "cargo build", "yarn build", "yarn build && x", "apt-get update", "mvn package", "echo", "uv run sync", "apk del x"} {
		if installed(t, text(command)) {
			t.Errorf("%s is found", command)
		}
	}
}

// installed tells whether it is found that a step with the whole context installs.
func installed(t *testing.T, text string) bool {
	t.Helper()
	findings, err := Check(File{Name: "F", Text: []byte(text)}) // of one service: nothing else is found
	if err != nil {
		t.Fatal(err)
	}
	return len(findings) == 1 && findings[0].Code == WholeWorkspace
}

func TestEachDirectoryThatCompilersWriteToIsKnown(t *testing.T) {
	text := func(target string) string {
		return "FROM scratch\nRUN --mount=type=cache,id=c,target=/src/" + target + " make\n"
	}
	for _, dir := range []string{"target", "build", "_build", "dist", "obj", "out", ".next", ".nuxt", "zig-cache", ".zig-cache", "bazel-out", "Target"} {
		if !finds(t, SharedTarget, text(dir)) {
			t.Errorf("%s is not found", dir)
		}
	}
	for _, dir := range []string{"targets", "cache", "target/x", "out.d"} {
		if finds(t, SharedTarget, text(dir)) {
			t.Errorf("%s is found", dir)
		}
	}
}

func TestEachPartOfCargosRegistryIsKnown(t *testing.T) {
	text := func(target string) string {
		return "FROM scratch\nRUN --mount=type=cache,target=" + target + " make\n"
	}
	for _, dir := range []string{"/usr/local/cargo/registry", "/usr/local/cargo/registry/cache", "/root/.cargo/registry/src", "/root/.cargo/registry/index/", "$CARGO_HOME/registry"} {
		if !finds(t, CargoRegistry, text(dir)) {
			t.Errorf("%s is not found", dir)
		}
	}
	for _, dir := range []string{"/usr/local/cargo/registry/src/x", "/usr/local/cargo", "/registry", "/my-cargo/registry", "/root/.cargo/git"} {
		if finds(t, CargoRegistry, text(dir)) {
			t.Errorf("%s is found", dir)
		}
	}
}

func TestEachCommandAndDirectoryOfAptIsKnown(t *testing.T) {
	text := func(target, command string) string {
		return "FROM scratch\nRUN --mount=type=cache,id=c,target=" + target + " " + command + "\n"
	}
	for _, command := range []string{"apt install x", "apt-get update", "aptitude update", "(apt-get update)", "x&&apt update", `["/usr/bin/apt", "update"]`} {
		for _, target := range []string{"/var/cache/apt", "/var/cache/apt/archives", "/var/lib/apt", "/var/lib/apt/lists", "/var/lib/./apt/"} {
			if !finds(t, AptUnlocked, text(target, command)) {
				t.Errorf("%s at %s is not found", command, target)
			}
		}
		for _, target := range []string{"/var/lib/aptitude", "/cache/apt", "/var/cache"} {
			if finds(t, AptUnlocked, text(target, command)) {
				t.Errorf("%s at %s is found", command, target)
			}
		}
	}
	for _, command := range []string{"apt-cacher", "adapt x", "cat /etc/apt.conf"} {
		if finds(t, AptUnlocked, text("/var/cache/apt", command)) {
			t.Errorf("%s is found", command)
		}
	}
}
