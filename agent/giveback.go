package main

import "time"

// Memory is given back every giveBackAtFirst while the agent does what only a start needs, such as to meet every stream for the first
// time, and then every giveBackLater in which something was shipped.
const (
	giveBackAtFirst = 500 * time.Millisecond
	firstGivings    = 10
	giveBackLater   = 5 * time.Second
)

// mapping is a range of addresses.
type mapping struct{ start, end uintptr }
