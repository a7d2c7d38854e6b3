//go:build tools

// Package upstream names what is built from this module, so that `go mod tidy` keeps its dependencies pinned.
package upstream

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
)
