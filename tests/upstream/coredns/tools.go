//go:build tools

// Package upstream names what is built from this module, so that `go mod tidy` keeps its dependencies pinned.
package upstream

import _ "github.com/coredns/coredns"
