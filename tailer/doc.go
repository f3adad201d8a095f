// Package tailer gives one audit log path of kube-apiserver as an endless sequence of lines, across rotation, gzip and
// restarts.
//
// The files of a path form a chain: the backups, oldest first, then the active file. Reading goes through the chain, and
// turns back only to what came late, from a second apiserver. [Tailer.Next] hands out lines; each carries the position
// after it, and a Tailer made from that position goes on with the next line, whatever happened to the files meanwhile: the
// position names the file by the hash of its first line, and counts in unpacked bytes.
//
// Two goroutines share the chain. The reader (whoever calls Next) reads the file in hand. The watcher looks at the
// directory, at notifications and at every poll, and opens what comes next at once, so that a backup that is deleted
// while Loki is down can still be read. Reading stops when nobody calls Next; watching does not.
//
// What is taken for granted of the writer (DESIGN section 4): a file is only appended to, at its end; after a later
// file has content, the earlier ones have stopped growing, but for lumberjack's, to which another apiserver may write on;
// a name with a time in it is given once. What is not: that the directory exists, that it can be read, that notifications
// arrive, that names or inodes stay, that the last line of a file is whole.
//
// In doubt, a line is read twice rather than not at all: Loki drops it. So a file that is shorter than its position, or
// has no end of a line there, is read from its beginning.
package tailer
