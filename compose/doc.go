// Package compose builds the images of a Compose project's services, each once, however
// many processes ask for them, and all of them as one plan.
//
//	project, err := compose.Load(ctx, compose.Options{Dir: "."})
//	…
//	plan, err := project.Plan(ctx, engine, compose.PlanOptions{})
//	…
//	results, err := plan.Ensure(ctx, cache)
//
// [Load] reads Compose files as Docker Compose does, with its own parser: overrides,
// extends, include, profiles, .env files and variables. [Project.Plan] looks at what the
// services are built from and says which images there will be, without building any.
// [Plan.Ensure] builds those that are missing or stale. Images have the tags that Compose
// gives them, so that `docker compose up --no-build` finds them.
//
// # What is honoured
//
// Of a service's build: context (a directory), dockerfile, dockerfile_inline, args,
// target, labels, network, no_cache, and additional_contexts that are images
// ("service:x", "docker-image://x"). Whatever else it has is refused with
// [ErrUnsupported], unless [Options].Ignore names it: an image that is not what its
// Compose file asks for is worse than none.
//
// # Order
//
// An image is built after those that its Dockerfile stands on or copies from, if other
// services of the project make them: by additional_contexts, or because the Dockerfile
// names their tags. depends_on says in which order containers are started, which need
// nothing of each other's to be built; so it orders no builds, as it orders none in
// Compose. Bases that no service makes must be in the store ([PlanOptions].Base gets
// them), for nothing is pulled while a build holds its locks.
//
// The module is apart from imagelock's own because of what Compose's parser depends on.
package compose
