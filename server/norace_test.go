//go:build !race

package server_test

const pooled = 1
