// Package positions keeps, on disk, how far each audit log path has been acknowledged by Loki: the identity of a file
// and an offset in it (Position), under a commit that survives SIGKILL and power loss (Store). DESIGN section 5.
//
// # Two ways of writing
//
// All files hold every path, in the same format (version, checksum, generation, paths: see format.go), mode 0600:
//
//   - positions.json, the durable file, is replaced by Sync, at most once a second and at shutdown.
//   - positions.latest.json and positions.latest2.json, the latest files, are overwritten in place by Commit, in turn, one
//     after every acknowledged push, without fsync.
//
// One way would have to choose. Written after every push with fsync, a file costs a disk flush per push, on the disk that
// etcd needs. Without fsync, a power loss can leave nothing whole. Once a second only, a SIGKILL repeats a second of
// pushes, which is more than what Loki's metric queries forgive (DESIGN section 6). With both, SIGKILL costs the pushes in
// flight, and power loss costs a second.
//
// The latest files are not replaced by rename, though that would be whole without a second file: a create and a rename per
// push cost more than all else that Commit does, and ext4 flushes a file when it is renamed over another (auto_da_alloc).
// To overwrite a file of the same size costs a copy into the page cache. But a SIGKILL can end a write between two pages,
// hence two files: a write goes to the one that does not hold the newest content, so the one that does is never at stake.
//
// Beside them lie positions.json.lock (flock: one agent per file; the kernel drops it with the process, so it is never
// stale), positions.admissions (see Admissions), and for moments positions.json.tmp and positions.admissions.tmp. To make an
// agent forget its positions, stop it and remove all three files: what was admitted goes with them. A symbolic link positions.json is followed once, at Open: all of this then lies beside what it points to.
//
// # Invariants
//
//  1. A position enters memory only by Commit, which is called with what Loki has acknowledged, or by Open, from a file
//     with a right checksum. So no file ever holds a position that was not acknowledged.
//  2. The LSN of a path in memory never falls.
//  3. What stands under positions.json was put there by rename, whole, and was on the disk before it got that name.
//  4. The latest file that was written last and whole is not written again before the other one is whole and newer.
//
// # A crash, operation by operation
//
// Sync replaces positions.json. Old is the content before it, new the one that it writes. A SIGKILL leaves what the
// system calls did; a power loss leaves of that only what was fsynced for sure, and of the rest anything: a file's
// bytes cut or zeroed, a directory's creates and renames done or not, in any order.
//
//	crash after                   SIGKILL                     power loss
//	create positions.json.tmp     old, and an empty .tmp      old; perhaps a .tmp
//	write                         old, and a .tmp             old; perhaps a .tmp, whole, cut or zeroed
//	fsync of .tmp                 old, and a whole .tmp       old; perhaps a .tmp, if so whole
//	close                         the same                    the same
//	rename .tmp positions.json    new                         old or new, either one whole: (3)
//	fsync of the directory        new                         new
//
// Sync returns nil only after the last line, so the durable file is never behind a Sync that returned nil. Without the
// first fsync, the row of the rename could read "nothing whole"; without the second, the last row would read "old or
// new". Where a call fails instead of crashing, Sync removes the .tmp, changes nothing else, returns the error, and
// remembers that the file is not up to date; the next Sync starts over with a new temporary file, and never trusts the
// pages of one whose fsync failed.
//
// Commit overwrites one of the latest files: one write from its beginning, of whole pages, its end filled with newlines that
// the checksum covers. Old is the content of the other one, of the Commit before; older is what the write goes over. The
// first Commit after Open, and one after a failure, opens the file before, which creates it if there is none.
//
//	crash after or in             SIGKILL                     power loss
//	open, first time              old, and an empty file      anything, see below
//	truncate (rarely)             old, and a cut one          the same
//	write, at any byte            old, and new upon older     the same
//	write                         old and new                 the same
//
// So once Commit returned nil, Open finds that position or a later one after SIGKILL, and while a Commit is under way at
// the worst that of the Commit before. A truncate comes only when less than half of the file is needed. Where a call fails
// instead of crashing, short writes among them, Commit closes the file, returns the error, and leaves the turn where it is
// (4): the next Commit opens and writes the same file anew, whatever it holds by then. On a full disk there is mostly
// nothing to fail: what is overwritten has its blocks.
//
// Somebody may remove or replace a latest file while it is open, and writing on would keep nothing. Sync looks if the names
// still are those of the open files, and of the size that was written. If not, that file is closed and its turn is next:
// the other one is now the newest. Until then, a second, SIGKILL may cost what power loss does.
//
// A power loss may leave each latest file
//
//   - whole, of any Commit, because pages or names were not on the disk yet;
//   - mixed of the pages of several, empty, cut or zeroed; or absent.
//
// Open reads the three files and takes, per path, the position with the higher LSN of those in a whole file. At the same LSN,
// of the latest files that of the higher generation counts, and of that and the durable one the latest, unless the durable one
// knows more: of a gap, of old events (Position.knows). A latest file that is damaged fails its checksum; one that is old loses by its LSN. Then the
// others count. A latest file that is whole and ahead holds acknowledged positions by (1), so it is right to use it, however
// it came to survive. Hence after any crash the position of a path is one that was committed, and not behind the last Sync
// that returned nil.
//
// Generations go on from the highest that Open finds, so of two latest files the higher one is the newer. One without a
// generation was written by an agent that knew positions.latest.json only: it ran last. Such an agent reads the files of
// this one, except for the second.
//
// Open itself changes files in an order that keeps this true: it removes temporary files, reads, writes what it found to
// positions.json.tmp and fsyncs that (so a place that cannot be written is refused before anything is touched), renames
// damaged files to <name>.damaged-<time>, then renames the temporary file and fsyncs the directory. A damaged file is
// moved only while everything whole is in the others and in memory. A latest file that is damaged beside a whole one is what
// any crash may leave: that is logged without alarm, and the file stays, to be overwritten next.
//
// # What a crash costs
//
// Repeats, never losses: what was pushed after the position found is read and pushed again, and Loki drops it.
//
//	SIGKILL                                  the pushes in flight
//	power loss                               what was acknowledged since the last Sync, about a second
//	either, while Commit and Sync fail       what was acknowledged since the last one that did not
//	all files damaged (a broken disk)        everything still on disk; Store.Lost tells
package positions
