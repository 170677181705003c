package docker

import (
	"context"

	"github.com/imagelock/imagelock/imagecache/inputs"
)

// Inputs digests what the build is made of, for [imagecache.Image].Inputs: the
// Dockerfile, what would be sent of the directory, the arguments, the labels, the target
// and the network of its steps. The images it is built on are not among it: they are the image's Parents,
// whose IDs imagecache adds. Nor is the platform, which is the store's.
//
// It takes as long as reading the directory does; see [inputs.Inputs.Digest], whose
// errors it returns.
func (b ContextBuild) Inputs(ctx context.Context) (string, error) {
	in := inputs.New().Text("docker context").Text(b.Target)
	if b.DockerfileText == "" {
		in.Dir(b.Dir, inputs.Dockerfile(b.dockerfile()))
	} else {
		in.Text(b.dockerfile()).Text(b.DockerfileText).Dir(b.Dir)
	}
	for k, v := range b.Args {
		in.Arg("arg "+k, v)
	}
	for k, v := range b.Labels {
		in.Arg("label "+k, v)
	}
	if b.NetworkMode != "" && b.NetworkMode != "default" {
		in.Arg("network", b.NetworkMode)
	}
	return in.Digest(ctx)
}

func (b ContextBuild) dockerfile() string {
	if b.Dockerfile == "" {
		return "Dockerfile"
	}
	return b.Dockerfile
}
