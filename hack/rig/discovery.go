package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// Resource is what a kube-apiserver serves: a resource, or a subresource of one. The core group is "".
type Resource struct{ Group, Name, Subresource string }

// discoveryAccept asks for all groups in one document (k8s.io/api/apidiscovery/v2).
const discoveryAccept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// Served gives all that the kube-apiserver serves by its discovery, in no order; a resource of several versions comes several times.
func (c *Cluster) Served(ctx context.Context) ([]Resource, error) {
	client, err := c.HTTPClient()
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	var all []Resource
	for _, path := range []string{"/api", "/apis"} {
		some, err := discover(ctx, client, c.url+path)
		if err != nil {
			return nil, fmt.Errorf("asking kube-apiserver what it serves: %w", err)
		}
		all = append(all, some...)
	}
	return all, nil
}

// discover reads one APIGroupDiscoveryList.
func discover(ctx context.Context, client *http.Client, url string) ([]Resource, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+Admin.Token)
	req.Header.Set("Accept", discoveryAccept)
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Versions []struct {
				Resources []struct {
					Resource     string
					Subresources []struct{ Subresource string }
				}
			}
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		return nil, fmt.Errorf("decoding %s (%s): %w", url, res.Status, err)
	}
	var all []Resource
	for _, group := range list.Items {
		for _, version := range group.Versions {
			for _, r := range version.Resources {
				all = append(all, Resource{Group: group.Metadata.Name, Name: r.Resource})
				for _, sub := range r.Subresources {
					all = append(all, Resource{group.Metadata.Name, r.Resource, sub.Subresource})
				}
			}
		}
	}
	return all, nil
}
