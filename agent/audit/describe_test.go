package audit

import (
	"errors"
	"strings"
	"testing"
)

// TestCorpus compares every line that a real kube-apiserver wrote with encoding/json.
func TestCorpus(t *testing.T) {
	for _, name := range []string{"sample.log", "torn-glued.log", "nul-hole.log.gz", "legacy-format.log", "metadata.log.gz",
		"mixed.log.gz", "big.log.gz"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDescriber(t)
			for n, line := range corpusLines(t, name) {
				if raceEnabled && n%10 != 0 { // ten times slower then, and there is no second goroutine
					continue
				}
				checkEntry(t, d, line)
				if t.Failed() {
					t.Fatalf("line %d", n+1)
				}
			}
		})
	}
}

// seeds are lines that are as odd as JSON lets them be: the table test and the fuzz targets begin with them.
var seeds = []string{
	``, ` `, `{}`, ` { } `, "\t{\r\n}", `[]`, `null`, `"x"`, `1`, `{}{}`, `{},`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{"a" : 1 , "b":2 }`,
	`{"a":[1,2,{"b":[]}]}`, `{"a":[1,]}`, `{"a":[1}}`, `{"a":{]}`, `{"a":tru}`, `{"a":truex}`, `{"a":true,"b":false,"c":null}`,
	`{"a":0,"b":-0,"c":1.5e+10,"d":-1E-2}`, `{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":1e}`, `{"a":-}`, `{"a":+1}`, `{"a":1e5}`,
	"{\"a\":\"\x00\"}", "{\"a\":\"tab\t\"}", `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\u12g4"}`, `{"a":"\`, `{"a":"`, `{"`, `{`,
	`{"a":"12345678`, `{"a":"1234567\n"}`, `{"a":"12345678901234567890\"1234567890"}`, "{\"a\":\"\xff\xfe\"}",
	`{"verb":"get"}`, `{"ve\u0072b":"get"}`, `{"verb":"g\u0065t"}`, `{"VERB":"get"}`, `{"verb ":"get"}`, `{ "verb" : "get" }`,
	`{"verb":"get","verb":"list"}`, `{"verb":"get","verb":1}`, `{"verb":1,"verb":"get"}`, `{"verb":null}`, `{"verb":["get"]}`,
	`{"verb":"\ud83d\ude00"}`, `{"verb":"\ud83d"}`, `{"verb":"\ud83dx"}`, `{"verb":"\ud83d\u0041"}`, `{"verb":"\ude00\ud83d"}`,
	`{"verb":"\ud83d\ud83d\ude00"}`, "{\"verb\":\"\xff\"}", "{\"verb\":\"a\xe2\x82\"}", "{\"verb\":\"\xed\xa0\x80\"}", `{"verb":"\b\f\n\r\t\"\\\/"}`,
	`{"user":{"username":"a"},"user":{}}`, `{"user":{"username":"a"},"user":7}`, `{"user":{"username":"a","username":{}}}`,
	`{"user":{"extra":{"username":"x"},"username":"b"}}`, `{"user":"bob"}`, `{"user":[]}`, `{"user":{"username":"system:node:n1"}}`,
	`{"user":{"username":"system:node:"}}`, `{"user":{"username":"system:nodes"}}`, `{"user":{"username":"system:node"}}`,
	`{"user":{"username":"unauthenticated"}}`, `{"user":{"username":"\ufffd"}}`, `{"user":{"username":"a\u0000b\n\u001b\"\\\u202e"}}`,
	`{"impersonatedUser":{"username":"eve"},"user":{"username":"bob"}}`, `{"username":"x","resource":"y","code":200}`,
	`{"requestObject":{"verb":"get","user":{"username":"x"}},"verb":"list"}`, `{"requestObject":[{"verb":"get"}]}`,
	`{"sourceIPs":["1.2.3.4","::1"]}`, `{"sourceIPs":[]}`, `{"sourceIPs":["a",1]}`, `{"sourceIPs":[1,"a"]}`, `{"sourceIPs":"a"}`, `{"sourceIPs":[["a"]]}`,
	`{"sourceIPs":["a" , "b" ]}`, `{"sourceIPs":["a",]}`, `{"sourceIPs":["a" "b"]}`, `{"sourceIPs":["a"],"sourceIPs":[]}`, `{"sourceIPs":[`,
	`{"objectRef":{}}`, `{"objectRef":null}`, `{"objectRef":{"resource":""}}`, `{"objectRef":{"resource":"pods","subresource":"exec"}}`,
	`{"objectRef":{"resource":"pods","name":"x"},"objectRef":{"namespace":"y"}}`, `{"objectRef":{"resource":"pods"},"objectRef":[]}`,
	`{"objectRef":{"resource":"a","subresource":"b"},"responseStatus":{"code":200}}`, `{"objectRef":{"apiGroup":"a","resource":"b"},"responseStatus":{"code":201}}`,
	`{"objectRef":{"resource":"a/b"},"responseStatus":{"code":200}}`, `{"objectRef":{"resource":"pods\u0000"}}`, `{"objectRef":{"apiGroup":"pods","resource":"exec"}}`,
	`{"objectRef":{"resource":"apps","subresource":"deployments"}}`, `{"objectRef":{"resource":".."},"responseStatus":{"code":200}}`,
	`{"objectRef":{"apiGroup":"x.example.com","resource":"things"},"responseStatus":{"code":404}}`,
	`{"responseStatus":{"metadata":{},"code":200}}`, `{"responseStatus":{"metadata":{},"code":2`, `{"responseStatus":{"metadata":{},"code":20`,
	`{"responseStatus":{"metadata":{},"code":200`, `{"responseStatus":{"metadata":{},"code":200}`, `{"responseStatus":{"metadata":{},"code":2}}`,
	`{"responseStatus":{"metadata":{},"code":20}}`, `{"responseStatus":{"metadata":{},"code":2000}}`, `{"responseStatus":{"metadata":{},"code":20a}}`,
	`{"responseStatus":{"metadata":{},"code":200 }}`, `{"responseStatus":{"metadata":{},"code":200,"code":404}}`,
	`{"responseStatus":{"metadata":{},"code":2e5}}`, `{"responseStatus":{"metadata":{},"code":299},"responseStatus":{}}`,
	`{"responseStatus":{"metadata":{},"code":204}]`,
	`{"responseStatus":{"code":200}}`, `{"responseStatus":{"code":404}}`, `{"responseStatus":{"code":"200"}}`, `{"responseStatus":{"code":2e2}}`,
	`{"responseStatus":{"code":-5}}`, `{"responseStatus":{"code":-0}}`, `{"responseStatus":{"code":200.0}}`, `{"responseStatus":{"code":9223372036854775807}}`,
	`{"responseStatus":{"code":9223372036854775808}}`, `{"responseStatus":{"code":500,"code":null}}`, `{"responseStatus":{"details":{"code":500}}}`,
	`{"responseStatus":{"code":500},"responseStatus":{}}`, `{"responseStatus":{"code":`, `{"annotations":{"authorization.k8s.io/decision":"allow"}}`,
	`{"stageTimestamp":"2026-11-23T20:33:05.237410Z"}`, `{"stageTimestamp":"2026-11-23T20:33:05Z"}`, `{"stageTimestamp":"2026-11-23T22:33:05.237410+02:00"}`,
	`{"stageTimestamp":"2026-02-29T20:33:05.237410Z"}`, `{"stageTimestamp":"2024-02-29T20:33:05.237410Z"}`, `{"stageTimestamp":"2026-11-31T20:33:05.237410Z"}`,
	`{"stageTimestamp":"1969-12-31T20:33:05.237410Z"}`, `{"stageTimestamp":"9999-12-31T20:33:05.237410Z"}`, `{"stageTimestamp":"2026-11-23T24:00:00.000000Z"}`,
	`{"stageTimestamp":"2026-11-23 20:33:05.237410Z"}`, `{"stageTimestamp":1}`, `{"stageTimestamp":"2026-11-23T20:33:05,237410Z"}`,
	`{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","verb":"get"}`, `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level": 1}`,
	`{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"x","stage":}`, `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"x","user":{"username":"a","verb":"get"}`,
	`{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"x","stage":"a","stage":"b","level":"y"}`, `{"a":[[1],[2,{"b":[`, `{"a":{"b"`, `{"a":{"b" `, `{"a":{"b" :`, `{"a":{"b":1 `, `{"a":{`, `{"a":{"b":1,`,
	`{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":`, `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"x"`,
	"2026-11-23T20:44:35.811994352Z AUDIT: id=\"x\"", "2026-11-23T20:44:35Z", "9 lives",
}

func TestOddLines(t *testing.T) {
	d := newDescriber(t)
	lines := append([]string(nil), seeds...)
	for _, n := range []int{62, 63, 64, 65, 66, 127, 128, 129, 200} {
		for _, depth := range []string{strings.Repeat("[", n), strings.Repeat(`{"a":`, n), strings.Repeat(`[{"a":`, n)} {
			end := strings.NewReplacer("[", "]", `{"a":`, "}").Replace(depth)
			back := []byte(end)
			for i, j := 0, len(back)-1; i < j; i, j = i+1, j-1 {
				back[i], back[j] = back[j], back[i]
			}
			wrong := strings.Replace(string(back), "]", "}", 1)
			for _, end := range []string{string(back), wrong, string(back)[1:], string(back) + "]"} {
				lines = append(lines, `{"a":`+depth+"1"+end+`,"verb":"get"}`)
			}
		}
	}
	for _, n := range []int{2028, 2029, 2030, 2047, 2048, 2049, 5000} {
		for _, r := range []string{"x", "é", "€", "\U0001f600", `\ufffd`} {
			long := strings.Repeat("x", n%4) + strings.Repeat(r, n/len(r)) + strings.Repeat("y", n%len(r))
			lines = append(lines, `{"user":{"username":"`+long+`"},"auditID":"`+long+`","verb":"`+long+`","objectRef":{"resource":"`+long+`"}}`)
		}
	}
	for _, n := range []int{252, 253, 254, 255, 256, 257, 600} {
		long := strings.Repeat("r", n)
		lines = append(lines, `{"objectRef":{"resource":"`+long+`"},"responseStatus":{"code":200}}`,
			`{"objectRef":{"apiGroup":"`+long+`","resource":"r","subresource":"`+long+`"},"responseStatus":{"code":200}}`)
	}
	huge := strings.Repeat(`\u0041`, 2*maxScratch)
	lines = append(lines, `{"name":"x","`+huge+`":"`+huge+`","auditID":"`+huge+`"}`, `{"ve\u0072b":"g\u0065t"}`)
	for _, line := range lines {
		checkEntry(t, d, []byte(line))
	}
	if cap(d.scratch) > maxScratch || cap(d.scan.key) > maxScratch {
		t.Errorf("buffers of %d and %d bytes are kept", cap(d.scratch), cap(d.scan.key))
	}
}

// TestDepth holds the limit of nesting to that of encoding/json, wherever the value stands.
func TestDepth(t *testing.T) {
	d := newDescriber(t)
	for _, frame := range []string{`{"a":%}`, `{"verb":%}`, `{"user":{"a":%}}`, `{"user":{"username":%}}`, `{"objectRef":{"name":%}}`,
		`{"sourceIPs":[%]}`, `{"responseStatus":{"code":%}}`, `{"annotations":{"a":%}}`} {
		for n := maxDepth - 4; n <= maxDepth+2; n++ {
			value := strings.Repeat("[", n) + strings.Repeat("]", n)
			checkDescribe(t, d, []byte(strings.Replace(frame, "%", value, 1)))
			if t.Failed() {
				t.Fatalf("%s with a value %d deep", frame, n)
			}
		}
	}
}

func TestErrorTellsTheOffset(t *testing.T) {
	_, err := newDescriber(t).Describe([]byte(`{"verb":"get",}`))
	if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "offset 14") {
		t.Error(err)
	}
}

// TestTruncated describes every beginning of a real event, and every event with one byte made wrong.
func TestTruncated(t *testing.T) {
	d := newDescriber(t)
	line := corpusLines(t, "sample.log")[2]
	for n := range line {
		checkDescribe(t, d, line[:n:n])
		broken := append([]byte(nil), line...)
		for _, c := range []byte("\x00\"\\{}[],:0 z\xff") {
			broken[n] = c
			checkDescribe(t, d, broken)
		}
	}
}
