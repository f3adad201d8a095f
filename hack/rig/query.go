package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Selector is the log query for everything that the agent sends.
const Selector = `{job="kube-apiserver-audit"}`

// pageLimit is how many entries one query asks for: max_entries_limit_per_query of loki.yaml, and Loki's default. A window
// that holds as many is asked again in smaller ones, so none is cut off.
const pageLimit = 5000

// ReadBack gives each entry that the log query finds in [from, to) to found, once as the query shows it. It asks for time
// windows that do not overlap, oldest first: the whole at once, then as wide as they can be. lokiURL is the server's root.
func ReadBack(ctx context.Context, lokiURL, query string, from, to time.Time, found func(Entry)) error {
	for width := to.Sub(from); from.Before(to); {
		end := from.Add(width)
		if end.After(to) {
			end = to
		}
		entries, err := queryRange(ctx, lokiURL, query, from, end)
		switch {
		case err != nil:
			return fmt.Errorf("reading back from Loki: %w", err)
		case len(entries) < pageLimit:
			for _, e := range entries {
				found(e)
			}
			from = end
			if len(entries) < pageLimit/4 {
				width *= 2
			}
		case width == 1:
			return fmt.Errorf("reading back from Loki: %d entries or more in the nanosecond at %s", pageLimit, from)
		default:
			width = max(1, min(width, end.Sub(from))/3)
		}
	}
	return nil
}

// rangeAnswer is the part of the answer of /loki/api/v1/query_range that is read (Loki HTTP API, "Query logs within a range
// of time"). With categorize-labels, stream holds the stream's labels alone and each value a third element.
type rangeAnswer struct {
	Data struct {
		Result []struct {
			Stream map[string]string
			Values [][]json.RawMessage
		}
	}
}

// queryRange gives the entries of one window, at most pageLimit. The window holds from and not to.
func queryRange(ctx context.Context, lokiURL, query string, from, to time.Time) ([]Entry, error) {
	params := url.Values{
		"query":     {query},
		"start":     {strconv.FormatInt(from.UnixNano(), 10)},
		"end":       {strconv.FormatInt(to.UnixNano(), 10)},
		"limit":     {strconv.Itoa(pageLimit)},
		"direction": {"forward"},
	}
	body, err := ask(ctx, lokiURL, "query_range", params)
	if err != nil {
		return nil, err
	}
	return decodeRange(body)
}

// Series gives the labels of each stream that the log query selects and that has an entry in [from, to). lokiURL is the server's
// root.
func Series(ctx context.Context, lokiURL, query string, from, to time.Time) ([]map[string]string, error) {
	body, err := ask(ctx, lokiURL, "series", url.Values{
		"match[]": {query},
		"start":   {strconv.FormatInt(from.UnixNano(), 10)},
		"end":     {strconv.FormatInt(to.UnixNano(), 10)},
	})
	if err != nil {
		return nil, fmt.Errorf("asking Loki for its streams: %w", err)
	}
	var answer struct{ Data []map[string]string }
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("asking Loki for its streams: %w", err)
	}
	return answer.Data, nil
}

// ask gives the answer of one endpoint of Loki's HTTP API.
func ask(ctx context.Context, lokiURL, endpoint string, params url.Values) ([]byte, error) {
	target := strings.TrimSuffix(lokiURL, "/") + "/loki/api/v1/" + endpoint + "?" + params.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Loki-Response-Encoding-Flags", "categorize-labels")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", res.Status, body[:min(len(body), 512)])
	}
	return body, nil
}

func decodeRange(body []byte) ([]Entry, error) {
	var answer rangeAnswer
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("decoding the answer: %w", err)
	}
	var entries []Entry
	for _, stream := range answer.Data.Result {
		for _, value := range stream.Values {
			e, err := decodeValue(value)
			if err != nil {
				return nil, fmt.Errorf("decoding the answer: %w", err)
			}
			e.Labels = stream.Stream
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// decodeValue decodes [time in ns, line, {"structuredMetadata": {…}}].
func decodeValue(value []json.RawMessage) (Entry, error) {
	if len(value) != 3 {
		return Entry{}, fmt.Errorf("an entry of %d elements, want 3", len(value))
	}
	var at, line string
	var categories struct{ StructuredMetadata map[string]string }
	for i, into := range []any{&at, &line, &categories} {
		if err := json.Unmarshal(value[i], into); err != nil {
			return Entry{}, err
		}
	}
	ns, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return Entry{}, err
	}
	return Entry{Time: time.Unix(0, ns).UTC(), Line: []byte(line), Metadata: categories.StructuredMetadata}, nil
}
