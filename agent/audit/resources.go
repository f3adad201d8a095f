package audit

import "strings"

// builtin holds, by resourceKey, what a kube-apiserver serves by itself, with the extension and aggregation layers, and
// metrics.k8s.io.
var builtin = func() map[string]bool {
	known := make(map[string]bool)
	add := func(group, resource, subresource string) {
		e := &Event{APIGroup: []byte(group), Resource: []byte(resource), Subresource: []byte(subresource)}
		known[string(appendResourceKey(nil, e))] = true
	}
	for line := range strings.Lines(builtinResources) {
		group, resources, _ := strings.Cut(strings.TrimSpace(line), ":")
		for _, field := range strings.Fields(resources) {
			resource, subresources, _ := strings.Cut(field, "/")
			add(group, resource, "")
			for sub := range strings.FieldsFuncSeq(subresources, func(r rune) bool { return r == ',' }) {
				add(group, resource, sub)
			}
		}
	}
	return known
}()

// builtinResources has one line for each group, the core one first: its resources, each with its subresources. From
// api/discovery of Kubernetes 1.37, and metrics.k8s.io.
const builtinResources = `: bindings componentstatuses configmaps endpoints events limitranges namespaces/finalize,status nodes/proxy,status persistentvolumeclaims/status persistentvolumes/status pods/attach,binding,ephemeralcontainers,eviction,exec,log,portforward,proxy,resize,status podtemplates replicationcontrollers/scale,status resourcequotas/status secrets serviceaccounts/token services/proxy,status
admissionregistration.k8s.io: mutatingadmissionpolicies/status mutatingadmissionpolicybindings mutatingwebhookconfigurations validatingadmissionpolicies/status validatingadmissionpolicybindings validatingwebhookconfigurations
apiextensions.k8s.io: customresourcedefinitions/status
apiregistration.k8s.io: apiservices/status
apps: controllerrevisions daemonsets/status deployments/scale,status replicasets/scale,status statefulsets/scale,status
authentication.k8s.io: selfsubjectreviews tokenreviews
authorization.k8s.io: localsubjectaccessreviews selfsubjectaccessreviews selfsubjectrulesreviews subjectaccessreviews
autoscaling: horizontalpodautoscalers/status
batch: cronjobs/status jobs/status
certificates.k8s.io: certificatesigningrequests/approval,status clustertrustbundles podcertificaterequests/status
coordination.k8s.io: leasecandidates leases
discovery.k8s.io: endpointslices
events.k8s.io: events
flowcontrol.apiserver.k8s.io: flowschemas/status prioritylevelconfigurations/status
internal.apiserver.k8s.io: storageversions/status
lifecycle.k8s.io: evictionrequests/status evictions/status
metrics.k8s.io: nodes pods
networking.k8s.io: ingressclasses ingresses/status ipaddresses networkpolicies servicecidrs/status
node.k8s.io: runtimeclasses
policy: poddisruptionbudgets/status
rbac.authorization.k8s.io: clusterrolebindings clusterroles rolebindings roles
resource.k8s.io: deviceclasses devicetaintrules/status resourceclaims/status resourceclaimtemplates resourcepoolstatusrequests/status resourceslices
scheduling.k8s.io: compositepodgroups/status podgroups/status priorityclasses workloads
storage.k8s.io: csidrivers csinodes/status csistoragecapacities storageclasses volumeattachments/status volumeattributesclasses
storagemigration.k8s.io: storageversionmigrations/status`

// maxSegment is how long a group, a resource or a subresource may be: a DNS name.
const maxSegment = 253

// legalResource says whether a server can have the resource of an event, of which no part is over maxSegment.
func legalResource(e *Event) bool {
	return legalSegment(e.APIGroup) && legalSegment(e.Resource) && legalSegment(e.Subresource)
}

// legalSegment says whether Kubernetes can have a group, resource or subresource of this name: small letters, digits,
// dots and hyphens, at both ends a letter or digit. There may be none.
func legalSegment(s []byte) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	return len(s) == 0 || s[0] >= '0' && s[len(s)-1] >= '0' // dot and hyphen come before the digits
}

// appendResourceKey appends what the event is about without ambiguity: the lengths of group, resource and subresource,
// of which none is over maxSegment, and then the three. (As a label, the resource b of a group a and a subresource b of
// a core resource a look alike.)
func appendResourceKey(dst []byte, e *Event) []byte {
	dst = append(dst, byte(len(e.APIGroup)), byte(len(e.Resource)), byte(len(e.Subresource)))
	dst = append(dst, e.APIGroup...)
	dst = append(dst, e.Resource...)
	return append(dst, e.Subresource...)
}

// splitResourceKey undoes appendResourceKey.
func splitResourceKey(key string) []string {
	group, resource := int(key[0]), int(key[1])
	text := key[3:]
	return []string{text[:group], text[group : group+resource], text[group+resource:]}
}

// appendResource appends what the event is about: pods, pods/exec, apps/deployments, apps/deployments/scale.
func appendResource(dst []byte, e *Event) []byte {
	if len(e.APIGroup) > 0 {
		dst = append(append(dst, e.APIGroup...), '/')
	}
	dst = append(dst, e.Resource...)
	if len(e.Subresource) > 0 {
		dst = append(append(dst, '/'), e.Subresource...)
	}
	return dst
}

// served says whether the answer of the event is a success: then the server has what the client asked for.
func served(e *Event) bool {
	return e.Code >= 200 && e.Code < 300
}
