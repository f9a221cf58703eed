package pebble

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The log is Pebble's, and its records are Pebble's batches. Two things in it are ours, as LogData, which Pebble writes and reads over: a
// mark at the beginning of every batch, and the blob of a commit at the end of its batch.
//
// Pebble ends its replay of the newest log at the first record that it cannot read: after a crash that is the torn end. Damage
// in the middle looks the same, and would cost everything behind it without a word. So a mark
// says up to which commit all was durable by then, and before the log is replayed all marks in it are looked for,
// also behind what cannot be read. If the replay does not come as far as a mark says, the log is damaged. The mark also has the epoch:
// a log of another store is refused.
//
// The replay of the blobs is ours: a row that is written with every commit tells how far Pebble came, and so far every blob must be there that
// is not in tables. They are made into tables before the store opens, and logs of earlier openings are never looked at again: what was written
// behind a torn end is not to come back, and what was read but never synced is not to be lost.
type logMark struct {
	epoch   string
	durable uint64
}

const logMarkMagic = "mesh-talk log\x01"

// append encodes the mark: magic, 16 bytes of epoch, uvarint.
func (m logMark) append(b []byte) []byte {
	b = append(append(b, logMarkMagic...), m.epoch...)
	return binary.AppendUvarint(b, m.durable)
}

func parseLogMark(b []byte) (m logMark, ok bool) {
	if len(b) < len(logMarkMagic)+epochLen || string(b[:len(logMarkMagic)]) != logMarkMagic {
		return m, false
	}
	b = b[len(logMarkMagic):]
	m.epoch = string(b[:epochLen])
	in := reader{b: b[epochLen:]}
	m.durable = in.uvarint()
	return m, !in.bad
}

// logFile is a log as it was found.
type logFile struct {
	path   string
	number uint64
	last   uint64 // commit, 0 for none
}

// logMarks is what the logs of a directory tell.
type logMarks struct {
	durable uint64
	file    string    // that says so
	logs    []logFile // in order
}

// readLogMarks reads all logs (a second for a GiB) and refuses one of another store.
func readLogMarks(fs vfs.FS, dir string, id identity) (marks logMarks, err error) {
	names, err := fs.List(dir)
	if err != nil {
		return marks, err
	}
	for _, name := range names {
		if n, ok := logNumber(name); ok {
			marks.logs = append(marks.logs, logFile{path: fs.PathJoin(dir, name), number: n})
		}
	}
	slices.SortFunc(marks.logs, func(a, b logFile) int { return cmp.Compare(a.number, b.number) })
	for i := range marks.logs {
		l := &marks.logs[i]
		foreign := false
		err = readLog(fs, *l, func(m logMark) {
			foreign = foreign || m.epoch != id.epoch && m.epoch != id.copyOf
			if m.durable > marks.durable {
				marks.durable, marks.file = m.durable, l.path
			}
		}, func(blob []byte) error {
			serial, _, _ := parseBlob(blob)
			l.last = max(l.last, serial)
			return nil
		})
		if err == nil && foreign {
			err = errors.New("it belongs to another store")
		}
		if err != nil {
			return marks, fmt.Errorf("%s: %w", l.path, err)
		}
	}
	return marks, nil
}

// logNumber is the number of a log, by its name.
func logNumber(path string) (uint64, bool) {
	text, ok := strings.CutSuffix(filepath.Base(path), ".log")
	n, err := strconv.ParseUint(text, 10, 64)
	return n, ok && err == nil
}

// newest is the number of the newest log, 0 for none.
func (m *logMarks) newest() uint64 {
	if len(m.logs) == 0 {
		return 0
	}
	return m.logs[len(m.logs)-1].number
}

// replay gives f the commits after written up to last, in order, from the logs after one. A commit that is missing is an error.
func (m *logMarks) replay(fs vfs.FS, after, written, last uint64, f func(serial uint64, blob []byte) error) error {
	next := written + 1
	for _, l := range m.logs {
		if l.number <= after || l.last < next {
			continue
		}
		err := readLog(fs, l, func(logMark) {}, func(blob []byte) error {
			serial, _, err := parseBlob(blob)
			if err != nil || serial != next || serial > last {
				return nil
			}
			next++
			return f(serial, blob)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", l.path, err)
		}
	}
	if next <= last {
		return fmt.Errorf("the log is corrupt: commits %d to %d cannot be read", next, last)
	}
	return nil
}

// The log's format: blocks of 32 KiB with chunks, none of which crosses a block; a header of checksum (4) of all after the length, length (2),
// type (1), log number (4), and, but for the first log of a new database, offset (8).
const (
	logBlock       = 32 << 10
	logShortHeader = 11
	logLongHeader  = 19
	logShortTypes  = 5 // and the three after it: full, first, middle, last
	logLongTypes   = 9
	logBatchHeader = 12 // sequence number, count
)

// chunkPart is which part of a record a chunk is, as an offset from the first of the types.
type chunkPart byte

const (
	partFull chunkPart = iota
	partFirst
	partMiddle
	partLast
)

// readLog gives the marks and the blobs of one file; both live until the call returns. What cannot be read is skipped.
func readLog(fs vfs.FS, l logFile, mark func(logMark), blob func([]byte) error) error {
	file, err := fs.Open(l.path)
	if err != nil {
		return err
	}
	defer file.Close()
	in := bufio.NewReaderSize(file, 8*logBlock)
	block := make([]byte, logBlock)
	var record []byte
	open := false // record has the beginning of one
	for {
		n, err := io.ReadFull(in, block)
		rest := block[:n]
		for len(rest) >= logShortHeader {
			kind, chunk, size := readChunk(rest, uint32(l.number))
			if size == 0 { // damage, or the end: there may be more behind it
				rest, open = rest[1:], false
				continue
			}
			rest = rest[size:]
			if kind == partFull || kind == partFirst {
				readBatchMark(chunk, mark)
				record, open = record[:0], true
			}
			if !open {
				continue
			}
			if record = append(record, chunk...); kind == partFull || kind == partLast {
				open = false
				if err := readBatchBlob(record, blob); err != nil {
					return err
				}
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// readChunk reads the chunk at the beginning of b and returns how long it is with its header, 0 if there is none that is whole and of this log.
func readChunk(b []byte, number uint32) (kind chunkPart, chunk []byte, size int) {
	length := int(binary.LittleEndian.Uint16(b[4:]))
	header := logShortHeader
	switch t := b[6]; {
	case t >= logLongTypes && t < logLongTypes+4:
		kind, header = chunkPart(t-logLongTypes), logLongHeader
	case t >= logShortTypes && t < logShortTypes+4:
		kind = chunkPart(t - logShortTypes)
	default:
		return 0, nil, 0
	}
	if header+length > len(b) || binary.LittleEndian.Uint32(b[7:]) != number {
		return 0, nil, 0
	}
	sum := crc32.Checksum(b[6:header+length], castagnoli)
	if binary.LittleEndian.Uint32(b) != (sum>>15|sum<<17)+0xa282ead8 {
		return 0, nil, 0
	}
	return kind, b[header:][:length], header + length
}

// readBatchMark looks for the mark at the beginning of a batch, of which there may be more.
func readBatchMark(batch []byte, f func(logMark)) {
	if len(batch) <= logBatchHeader || batch[logBatchHeader] != byte(pebble.InternalKeyKindLogData) {
		return
	}
	in := reader{b: batch[logBatchHeader+1:]}
	if in.uvarint(); in.bad {
		return
	}
	if m, ok := parseLogMark(in.b); ok {
		f(m)
	}
}

// readBatchBlob looks for the blob in a batch.
func readBatchBlob(batch []byte, f func([]byte) error) error {
	if len(batch) < logBatchHeader {
		return nil
	}
	for r := batchrepr.Read(batch); ; {
		kind, data, _, ok, err := r.Next()
		if err != nil {
			return fmt.Errorf("a malformed batch: %w", err)
		}
		if !ok {
			return nil
		}
		if kind == pebble.InternalKeyKindLogData && len(data) >= blobHeader && data[0] == blobVersion {
			return f(data)
		}
	}
}

// mark is what a write that begins now may say.
func (g *generation) mark() []byte {
	return logMark{g.s.identity.epoch, g.durableSerial.Load()}.append(make([]byte, 0, len(logMarkMagic)+epochLen+10))
}
