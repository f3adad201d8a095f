// Package positions keeps, on disk, how far each audit log path has been acknowledged by Loki: the identity of a file
// and an offset in it (Position), under a commit that survives SIGKILL and power loss (Store). DESIGN section 5.
//
// # Two files
//
// Both hold every path, in the same format (version, checksum, paths: see format.go), mode 0600:
//
//   - positions.json, the durable file, is written by Sync, at most once a second and at shutdown.
//   - positions.latest.json, the latest file, is written by Commit, after every acknowledged push, without fsync.
//
// One file would have to choose. Written after every push with fsync, it costs a disk flush per push, on the disk that
// etcd needs. Without fsync, a power loss can leave an empty file under the new name and nothing under the old one.
// Once a second only, a SIGKILL repeats a second of pushes, which is more than what Loki's metric queries forgive
// (DESIGN section 6). With two, SIGKILL costs the pushes in flight, and power loss costs a second.
//
// Beside them lie positions.json.lock (flock: one agent per file; the kernel drops it with the process, so it is never
// stale), and for moments a temporary file, <name>.tmp. To make an agent forget its positions, stop it and remove both
// files. A symbolic link positions.json is followed once, at Open: all of this then lies beside what it points to.
//
// # Invariants
//
//  1. A position enters memory only by Commit, which is called with what Loki has acknowledged, or by Open, from a file
//     with a right checksum. So no file ever holds a position that was not acknowledged.
//  2. The LSN of a path in memory never falls.
//  3. What stands under a final name was put there by rename, whole.
//  4. Under positions.json, it was also on the disk before it got that name.
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
//	rename .tmp positions.json    new                         old or new, either one whole: (4)
//	fsync of the directory        new                         new
//
// Sync returns nil only after the last line, so the durable file is never behind a Sync that returned nil. Without the
// first fsync, the row of the rename could read "nothing whole"; without the second, the last row would read "old or
// new". Where a call fails instead of crashing, Sync removes the .tmp, changes nothing else, returns the error, and
// remembers that the file is not up to date; the next Sync starts over with a new temporary file, and never trusts the
// pages of one whose fsync failed.
//
// Commit replaces positions.latest.json by the same steps without both fsyncs. For SIGKILL the middle column holds as it
// stands: once Commit returned nil, Open finds that position or a later one. A power loss may leave the latest file
//
//   - whole and newest;
//   - whole and old, because renames were lost;
//   - empty, cut or zeroed under its final name, because the rename reached the disk before the bytes did; or absent.
//
// Open reads both files and takes, per path, the position with the higher LSN of those in a whole file. A latest file
// that is damaged fails its checksum and is kept aside; one that is old loses by its LSN. In both cases the durable file
// counts. A latest file that is whole and ahead holds acknowledged positions by (1), so it is right to use it, however
// it came to survive. Hence after any crash the position of a path is one that was committed, and not behind the last
// Sync that returned nil.
//
// Open itself changes files in an order that keeps this true: it removes temporary files, reads, writes what it found to
// positions.json.tmp and fsyncs that (so a place that cannot be written is refused before anything is touched), renames
// damaged files to <name>.damaged-<time>, then renames the temporary file and fsyncs the directory. A damaged file is
// moved only while everything whole is in the other one and in memory.
//
// # What a crash costs
//
// Repeats, never losses: what was pushed after the position found is read and pushed again, and Loki drops it.
//
//	SIGKILL                                  the pushes in flight
//	power loss                               what was acknowledged since the last Sync, about a second
//	either, while Commit and Sync fail       what was acknowledged since the last one that did not
//	both files damaged (a broken disk)       everything still on disk; Store.Lost tells
package positions
