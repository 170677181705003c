package lint

import (
	"testing"

	"github.com/imagelock/imagelock/dockerfile"
)

// clean is the Dockerfile of a Rust workspace's services as it should be.
const clean = `# syntax=docker/dockerfile:1
ARG RUST=1.90
FROM rust:${RUST} AS chef
ENV CARGO_HOME=/cargo
WORKDIR /build
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt,sharing=locked \
    apt-get update && apt-get install -y protobuf-compiler
RUN cargo install cargo-chef
FROM chef AS planner
COPY . .
RUN cargo chef prepare --recipe-path recipe.json
FROM chef AS builder
ARG SERVICE
COPY --from=planner /build/recipe.json .
RUN --mount=type=cache,target=/cargo \
    --mount=type=cache,id=target-builder-${SERVICE},target=/build/target \
    cargo chef cook --release
COPY Cargo.toml Cargo.lock ./
COPY crates/common crates/common
COPY crates/${SERVICE} crates/${SERVICE}
RUN --mount=type=cache,target=/cargo \
    --mount=type=cache,id=target-builder-${SERVICE},target=/build/target \
    <<EOF
set -e
cargo build --release -p ${SERVICE}
cp target/release/${SERVICE} /app
EOF
FROM debian:13-slim AS runtime
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt,sharing=locked \
    apt-get update && apt-get install -y --no-install-recommends ca-certificates
COPY --from=builder /app /usr/local/bin/app
ENTRYPOINT ["/usr/local/bin/app"]
`

func TestNothingIsFoundInGoodDockerfiles(t *testing.T) {
	for name, text := range map[string]string{
		"rust": clean,
		"go": `FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build CGO_ENABLED=0 go build -o /app ./cmd/app
FROM gcr.io/distroless/static
COPY --from=build /app /app
`,
		"go, mounted": `FROM golang:1.26 AS build
WORKDIR /src
RUN --mount=type=bind,target=. --mount=type=cache,target=/go/pkg/mod go build -o /app ./cmd/app
FROM scratch
COPY --from=build /app /app
`,
		"node": `FROM node:24-slim AS deps
WORKDIR /app
COPY package.json package-lock.json ./
RUN --mount=type=cache,target=/root/.npm npm ci
FROM deps AS build
COPY . .
RUN npm run build
FROM nginx:1.29
COPY --from=build /app/dist /usr/share/nginx/html
`,
		"python": `FROM python:3.14-slim
ENV PIP_CACHE_DIR=/pip
WORKDIR /app
COPY requirements.txt .
RUN --mount=type=cache,target=/pip pip install -r requirements.txt
COPY . .
RUN python -m compileall .
CMD ["python", "-m", "app"]
`,
		"java": `FROM maven:3-eclipse-temurin-25 AS build
WORKDIR /src
COPY pom.xml .
RUN --mount=type=cache,target=/root/.m2,sharing=locked mvn -B dependency:go-offline
COPY src src
RUN --mount=type=cache,target=/root/.m2,sharing=locked mvn -B package
FROM eclipse-temurin:25-jre
COPY --from=build /src/target/app.jar /app.jar
`,
		"windows": "# escape=`\nFROM mcr.microsoft.com/windows/nanoserver:ltsc2022\nCOPY app.exe C:\\app\\\nRUN C:\\app\\app.exe `\n  --version\n",
	} {
		t.Run(name, func(t *testing.T) {
			if got := found(t, File{Name: "Dockerfile", Text: []byte(text)}); len(got) > 0 {
				t.Errorf("%q", got)
			}
		})
	}
	var services []File
	for _, s := range []string{"api", "executor", "sensor", "notifier", "worker"} {
		services = append(services, File{Name: "Dockerfile", Service: s, Text: []byte(clean), Options: dockerfile.Options{Args: map[string]string{"SERVICE": s}}})
	}
	if got := found(t, services...); len(got) > 0 {
		t.Errorf("%q", got)
	}
}
