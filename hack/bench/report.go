package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// spread is a figure of several runs.
type spread []float64

func (s spread) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

func (s spread) String() string {
	return fmt.Sprintf("%.2f (%.2f to %.2f)", s.median(), slices.Min(s), slices.Max(s))
}

// per gives, run by run, one figure as a multiple of another.
func (s spread) per(other spread) (ratios spread) {
	for i := range s {
		ratios = append(ratios, s[i]/other[i])
	}
	return ratios
}

func each(costs []cost, figure func(cost) float64) (s spread) {
	for _, c := range costs {
		s = append(s, figure(c))
	}
	return s
}

// report prints what the floor and the agent have cost, and the ratio of each pair of runs.
func report(log data, floor, agent []cost) {
	out := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(out, "  \tfloor\tagent\tagent/floor")
	for _, row := range []struct {
		name   string
		figure func(cost) float64
	}{
		{"CPU s/GB", func(c cost) float64 { return c.cpu.Seconds() / float64(log.bytes) * 1e9 }},
		{"wall s", func(c cost) float64 { return c.wall.Seconds() }},
		{"peak RSS MB", func(c cost) float64 { return float64(c.peak) / 1e6 }},
		{"wire MB", func(c cost) float64 { return float64(c.wire) / 1e6 }},
		{"pushes", func(c cost) float64 { return float64(c.requests) }},
	} {
		f, a := each(floor, row.figure), each(agent, row.figure)
		fmt.Fprintf(out, "  %s\t%v\t%v\t%v\n", row.name, f, a, a.per(f))
	}
	_ = out.Flush()
}

// allocations lets the agent ship the log once more and prints what it has allocated for each event of the second half.
func (b *bench) allocations(ctx context.Context, log data) error {
	if b.Agent != "" {
		return nil // another agent has other metrics
	}
	var seen spread
	_, err := b.ship(ctx, log, "agent", b.agentCommand, func(*process) error {
		n, err := b.metric(ctx, "go_memstats_mallocs_total")
		seen = append(seen, n)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Printf("  allocations per event in the second half: %.3f\n", (seen[1]-seen[0])/float64(log.lines-log.lines/2))
	return nil
}

// metric gives one figure of the agent's /metrics.
func (b *bench) metric(ctx context.Context, name string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.listen+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, errors.Join(fmt.Errorf("the agent has no metric %s", name), lines.Err())
}
