package compat

import "github.com/noria-go/noria/internal/friend"

// Friend returns what the benchmarks and tests of this module may do with a sync
// stream. See package internal/friend.
func (ss *SyncStream) Friend(friend.Key) *syncFriend { return (*syncFriend)(ss) }

// A syncFriend is a SyncStream for code that measures it.
type syncFriend SyncStream

// GrowLinearly has the buffers of a GrowableSyncStream grow by step bytes in place of
// doubling, so that the two can be compared. It is called before the first use.
func (f *syncFriend) GrowLinearly(step int) { f.r.step, f.w.step = step, step }

// Held returns the size of the memory that the reading half holds, in bytes.
func (f *syncFriend) Held() int { return f.r.held() }

// Counts returns what the sync stream has done since it was made.
func (f *syncFriend) Counts() counts { return f.counts }

// counts are what a sync stream has done since it was made.
type counts struct {
	WouldBlock  int64 // calls of the library that returned ErrWouldBlock
	Fills       int64 // calls of FillReadBuf
	Flushes     int64 // calls of FlushWriteBuf that had something to flush
	Rollbacks   int64 // of the reading half
	BytesCopied int64 // from one piece of memory to another
	PeakBuffer  int   // the most that the reading half has held, in bytes
}
