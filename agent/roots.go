package main

import (
	"crypto/x509"
	"strings"
	"sync"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// needsRoots reports whether something may have to be trusted: Loki itself, or what --loki-http-config names.
func (t *target) needsRoots() bool {
	return t.httpFile != "" || !strings.HasPrefix(t.address, "http://")
}

// useFallbackRoots makes the CA certificates that browsers trust those of last resort: the image has no bundle of its own.
// It is what the package fallback does at every start, also where there is no TLS: that takes 0.7 MB of an idle agent's
// memory.
var useFallbackRoots = sync.OnceFunc(func() {
	pool := x509.NewCertPool()
	for root := range bundle.Roots() {
		cert, err := x509.ParseCertificate(root.Certificate)
		switch {
		case err != nil: // a certificate that this version of Go refuses is none to trust
		case root.Constraint == nil:
			pool.AddCert(cert)
		default:
			pool.AddCertWithConstraint(cert, root.Constraint)
		}
	}
	x509.SetFallbackRoots(pool)
})
