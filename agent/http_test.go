package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestProfilesAreForThisMachineAlone(t *testing.T) {
	mux := http.NewServeMux()
	addProfiles(mux)
	for client, want := range map[string]int{
		"127.0.0.1:1234": 200, "127.8.0.1:1234": 200, "[::1]:1234": 200, "[::ffff:127.0.0.1]:1234": 200,
		"10.0.0.1:1234": 403, "[fe80::1%eth0]:1234": 403, "[2001:db8::1]:1234": 403, "0.0.0.0:1": 403, "": 403, "@": 403,
	} {
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline"} {
			request := httptest.NewRequest("GET", path, nil)
			request.RemoteAddr = client
			answer := httptest.NewRecorder()
			mux.ServeHTTP(answer, request)
			if answer.Code != want {
				t.Errorf("%s for %q: %d", path, client, answer.Code)
			}
		}
	}
}

func TestProfilesAreServedOnlyIfAskedFor(t *testing.T) {
	for _, tt := range []struct {
		flags []string
		code  int
	}{{nil, 404}, {[]string{"--pprof"}, 200}} {
		n := newNode(t)
		n.listen = freeAddress(t)
		n.start(tt.flags...)
		n.until("the agent listens", func() bool { code, _ := n.get("/healthz"); return code == 200 })
		if code, body := n.get("/debug/pprof/goroutine?debug=1"); code != tt.code || code == 200 && !strings.Contains(body, "goroutine profile") {
			t.Errorf("%v: %d: %.80s", tt.flags, code, body)
		}
		n.stopped()
	}
}
