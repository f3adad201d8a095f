// Package crds pins the modules whose definitions of custom resources the tests install into a real kube-apiserver: PodMonitor of
// Prometheus Operator, SecurityContextConstraints of OpenShift. Nothing of them is built; `go mod download` fetches them. The
// imports keep them in go.mod.
package crds

import (
	_ "github.com/openshift/api/security/v1/zz_generated.crd-manifests"
	_ "github.com/prometheus-operator/prometheus-operator/pkg/versionutil"
)
