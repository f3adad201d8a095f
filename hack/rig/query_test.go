package rig

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"
)

// lokiOf serves query_range over entries at the given nanoseconds as Loki does: start within, end not, oldest first, at most
// limit of them.
func lokiOf(t *testing.T, nanoseconds []int64) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		number := func(name string) int64 {
			n, err := strconv.ParseInt(r.FormValue(name), 10, 64)
			if err != nil {
				t.Error(err)
			}
			return n
		}
		values := []any{}
		for i, ns := range nanoseconds {
			if ns >= number("start") && ns < number("end") && int64(len(values)) < number("limit") {
				values = append(values, []any{strconv.FormatInt(ns, 10), "line " + strconv.Itoa(i),
					map[string]any{"structuredMetadata": map[string]string{"stage": "Panic"}}})
			}
		}
		stream := map[string]any{"stream": map[string]string{"job": "j"}, "values": values}
		if r.URL.Path != "/loki/api/v1/query_range" || r.Header.Get("X-Loki-Response-Encoding-Flags") != "categorize-labels" {
			t.Errorf("asked %s with %v", r.URL, r.Header)
		}
		err := json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{"result": []any{stream}}})
		if err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

func TestReadBackAsksFullWindowsAgain(t *testing.T) {
	from := time.Unix(1000, 0)
	var ns []int64
	for i := range 3*pageLimit + 7 { // most of them crowded in one microsecond, two at each of its nanoseconds
		ns = append(ns, from.UnixNano()+1000+int64(i)/2)
	}
	ns = append(ns, from.UnixNano(), from.Add(time.Hour).UnixNano(), from.Add(time.Hour).UnixNano()-1)
	server := lokiOf(t, ns)
	found := map[string]int{}
	err := ReadBack(t.Context(), server.URL+"/", "{}", from, from.Add(time.Hour), func(e Entry) {
		found[string(e.Line)]++
		if e.Labels["job"] != "j" || e.Metadata["stage"] != "Panic" || e.Time.Before(from) {
			t.Errorf("entry %v", e)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != len(ns)-1 { // the one at the end is outside
		t.Errorf("%d of %d found", len(found), len(ns)-1)
	}
	for line, n := range found {
		if n != 1 {
			t.Errorf("%s found %d times", line, n)
		}
	}
}

func TestReadBackSaysWhenItCannotSeeAll(t *testing.T) {
	ns := make([]int64, pageLimit)
	server := lokiOf(t, ns)
	if err := ReadBack(t.Context(), server.URL, "{}", time.Unix(0, 0), time.Unix(1, 0), func(Entry) {}); err == nil {
		t.Error("a full nanosecond was read back as if it were whole")
	}
}

func TestReadBackReportsRefusals(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	if err := ReadBack(t.Context(), server.URL, "{}", time.Unix(0, 0), time.Unix(1, 0), func(Entry) {}); err == nil {
		t.Error("a 404 is no error")
	}
}
