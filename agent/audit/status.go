package audit

import "strconv"

// readStatus reads the code of responseStatus.
func (d *Describer) readStatus(s *scanner, e *Event) {
	e.Code, e.code = 0, nil
	if d.readSuccess(s, e) {
		return
	}
	if s.line[s.at] != '{' {
		s.skip(1)
		return
	}
	var key []byte
	var ok bool
	if s.usual(&usualMetadata) {
		s.skip(2)
		for i := range usualFailure {
			if s.usual(&usualFailure[i]) {
				s.skip(2)
			}
		}
		key, ok = s.nextKey()
	} else {
		key, ok = s.firstKey()
	}
	for ; ok; key, ok = s.nextKey() {
		start, isCode := s.at, string(key) == "code"
		s.skip(2)
		if isCode && !s.bad {
			e.code = s.line[start:s.at]
			if e.Code = parseInt(e.code); e.Code == 0 {
				e.code = nil
			}
		}
	}
}

// readSuccess reads the status of a request that was served, as kube-apiserver writes it. It only saves time, as readUsual does.
func (d *Describer) readSuccess(s *scanner, e *Event) bool {
	start := s.at
	if !s.usual(&usualCode) {
		return false
	}
	code := s.line[s.at:]
	if len(code) < 4 || code[1]-'0' > 9 || code[2]-'0' > 9 || code[3] != '}' {
		s.at = start
		return false
	}
	e.code = code[:3]
	e.Code = parseInt(e.code)
	s.at += 4
	return true
}

// parseInt gives the integer that a JSON number is, 0 if it is something else or does not fit.
func parseInt(b []byte) int {
	if len(b) == 3 && b[0] >= '1' && b[0] <= '9' && b[1]-'0' < 10 && b[2]-'0' < 10 {
		return int(b[0]-'0')*100 + int(b[1]-'0')*10 + int(b[2]-'0')
	}
	n, err := strconv.Atoi(string(b))
	if err != nil {
		return 0
	}
	return n
}
