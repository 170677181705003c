package oci

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// Identity returns the random name that the store was given when it was made. It
// is kept inside the directory, so that everybody who reaches the directory, by
// whatever path or mount, is told the same. A copy of the directory has the name
// of the original; delete .imagelock/identity in the copy to tell them apart.
func (s *Store) Identity(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", fail("identity", "", "", err)
	}
	path := s.own("identity")
	data, err := readSmall(path, maxIdentity)
	if err != nil {
		return "", fail("identity", "", path, err)
	}
	id := strings.TrimSuffix(string(data), "\n")
	digits, ok := strings.CutPrefix(id, "oci-")
	if !ok || len(digits) != 32 || strings.Trim(digits, "0123456789abcdef") != "" || len(data) != len(id)+1 {
		return "", fail("identity", "", path, corrupt(path,
			"not an identity; delete the file while no process uses the store, a new one is made by the next Open"))
	}
	return id, nil
}

// makeIdentity gives the store its name unless it has one.
func (s *Store) makeIdentity() error {
	if _, err := readSmall(s.own("identity"), maxIdentity); err != nil {
		b := make([]byte, 16)
		rand.Read(b) // never fails
		if err := s.createOnce(s.own("identity"), []byte("oci-"+hex.EncodeToString(b)+"\n")); err != nil {
			return err
		}
	}
	_, err := s.Identity(context.Background())
	return err
}

func checkVersion(data []byte) error {
	var v struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return fmt.Errorf("%w: %s is no JSON: %w", ErrNotLayout, layoutFile, err)
	}
	if v.Version != "1.0.0" {
		return fmt.Errorf("%w %q: this package knows 1.0.0; choose another directory", ErrLayoutVersion, v.Version)
	}
	return nil
}
