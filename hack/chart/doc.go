// Package chart tests the Helm chart, manifests/helm/auditferry, with the build tag e2e. `make chart` builds what it needs: Helm,
// kubectl, kube-apiserver and the agent.
//
//	TestGolden     what the chart renders for testdata/CASE.values.yaml is testdata/CASE.golden.yaml, and its notes CASE.notes.txt
//	TestConfig     the agent takes the settings and the http_config in each of them, and finds its files where it looks for them
//	TestKustomize  for each distribution it is what manifests/kustomize/overlays makes, but for what must differ
//	TestSchema     a wrong value is an error that names it
//	TestVersion    which versions of Kubernetes the chart is for
//	TestSettings   every flag of the agent is a key of the value config, or is left out for a reason
//	TestReadme     the table in the chart's README.md is what values.yaml and values.schema.json say
//	TestExamples   the values that it shows are rendered, and the agent takes them
//	TestPackage    what `helm package` puts into the archive
//	TestInstall    in a real kube-apiserver: installed, changed, uninstalled; what replaces the pods and what does not
//
// With -update, TestGolden and TestReadme write the files that they compare with.
package chart
