package docker

import (
	"context"

	"github.com/docker/docker/api/types/image"
)

// inspected is what a look needs to know of an image.
type inspected struct {
	ID                        string `json:"Id"`
	RepoTags                  []string
	Os, Architecture, Variant string
	Config                    struct{ Labels map[string]string }
}

func brief(img image.InspectResponse) *inspected {
	i := &inspected{ID: img.ID, RepoTags: img.RepoTags, Os: img.Os, Architecture: img.Architecture, Variant: img.Variant}
	if img.Config != nil {
		i.Config.Labels = img.Config.Labels
	}
	return i
}

// inspect asks for the image of that name.
func (s *Store) inspect(ctx context.Context, name string) (*inspected, error) {
	if s.direct != nil {
		var img inspected
		if err := s.direct.get(ctx, "/images/"+name+"/json", &img); err == nil || notFound(err) {
			return &img, err
		}
	}
	img, err := s.api.ImageInspect(ctx, name)
	return brief(img), err
}

// listed is what is needed of an image in a list.
type listed struct {
	ID       string `json:"Id"`
	RepoTags []string
	Labels   map[string]string
}

// imageList asks for all images.
func (s *Store) imageList(ctx context.Context) ([]listed, error) {
	if s.direct != nil {
		var list []listed
		if s.direct.get(ctx, "/images/json", &list) == nil {
			return list, nil
		}
	}
	images, err := s.api.ImageList(ctx, image.ListOptions{})
	list := make([]listed, len(images))
	for i, img := range images {
		list[i] = listed{img.ID, img.RepoTags, img.Labels}
	}
	return list, err
}
