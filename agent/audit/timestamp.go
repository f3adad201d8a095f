package audit

import (
	"bytes"
	"time"
)

// parseTime gives the time that an RFC 3339 string is, in UTC; zero if it is none.
func parseTime(b []byte) time.Time {
	if t, ok := parseMicro(b); ok {
		return t
	}
	t, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// parseMicro reads what kube-apiserver writes, 2006-01-02T15:04:05.000000Z (metav1.RFC3339Micro), and nothing else.
func parseMicro(b []byte) (time.Time, bool) {
	if len(b) != 27 || b[4] != '-' || b[7] != '-' || b[10] != 'T' || b[13] != ':' || b[16] != ':' || b[19] != '.' || b[26] != 'Z' {
		return time.Time{}, false
	}
	var bad byte
	two := func(i int) int {
		tens, ones := b[i]-'0', b[i+1]-'0'
		if tens > 9 || ones > 9 {
			bad = 1
		}
		return int(tens)*10 + int(ones)
	}
	year, month, day := two(0)*100+two(2), two(5), two(8)
	hour, minute, second := two(11), two(14), two(17)
	micro := two(20)*10000 + two(22)*100 + two(24)
	// A day that every month has: the others are left to time.Parse, which knows the calendar.
	if bad != 0 || year < 1970 || month < 1 || month > 12 || day < 1 || day > 28 && !hasDay(year, month, day) ||
		hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, false
	}
	seconds := int64(daysSince1970(year, month, day))*86400 + int64(hour*3600+minute*60+second)
	return time.Unix(seconds, int64(micro)*1000).UTC(), true
}

// hasDay says whether a month has a day that is past the 28th.
func hasDay(year, month, day int) bool {
	return day <= 31 && time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC).Day() == day
}

// daysSince1970 counts days of the Gregorian calendar. Years begin in March here, so that a leap day ends one, and
// months have 153 days in five (Howard Hinnant, "chrono-compatible low-level date algorithms").
func daysSince1970(year, month, day int) int {
	month -= 3
	if month < 0 {
		month += 12
		year--
	}
	return 365*year + year/4 - year/100 + year/400 + (153*month+2)/5 + day - 1 - 719468
}

// leadingTime gives the RFC 3339 time with which a line begins, before a space, as in --audit-log-format=legacy; zero
// if it does not begin so.
func leadingTime(line []byte) time.Time {
	const longest = len("2006-01-02T15:04:05.000000000+00:00")
	head := line[:min(len(line), longest+1)]
	if len(head) == 0 || head[0]-'0' > 9 {
		return time.Time{}
	}
	end := bytes.IndexByte(head, ' ')
	if end < 0 {
		return time.Time{}
	}
	return parseTime(head[:end])
}

// holds says whether Loki can hold a time: it counts nanoseconds since 1970 in an int64, so up to the year 2262.
func holds(t time.Time) bool {
	return t.Unix() >= 0 && t.Unix() < 1<<63/1_000_000_000
}
