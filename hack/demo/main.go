// Command demo shows auditferry at work, without a cluster and without a Loki: `make demo`.
//
// It writes real audit events as kube-apiserver does (lumberjack, rotation at 1 MB, gzip) at a pace that one can follow, and
// ships them with the real agent, which it ends once by SIGKILL in the middle of a push. Then it reads everything back as a
// log query sees it, and compares. With -loki URL it uses a running Loki instead of the endpoint inside this program.
//
// The exit code is 0 if every event is in Loki once, as it was written; 1 if not; 130 after Ctrl-C.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	lokiURL := flag.String("loki", "", "`URL` of a running Loki, such as http://127.0.0.1:3100 (default: an endpoint inside this program)")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "demo: %q is too much: there are flags only, see -help\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE)
	err := show(ctx, *lokiURL, os.Stdout)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case interrupted:
		fmt.Println("\nstopped before the end; the agent has ended, its files are removed")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}
