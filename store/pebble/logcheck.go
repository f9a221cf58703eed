package pebble

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Pebble ends its replay of the newest log at the first record that it cannot read: after a crash that is the torn end. Damage
// in the middle looks the same, and would cost everything behind it without a word. So every write begins with a mark that
// says up to which commit all was durable by then, and before the log is replayed all marks in it are looked for,
// also behind what cannot be read. If the replay does not come as far as a mark says, the log is damaged. The mark also has the epoch:
// a log of another store is refused.
//
// A mark is Pebble's LogData: it is in the log and nowhere else.
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

// logMarks is what the logs of a directory tell.
type logMarks struct {
	durable uint64
	file    string // that says so
}

// readLogMarks reads all logs (a second for a GiB) and refuses one of another store.
func readLogMarks(fs vfs.FS, dir string, id identity) (marks logMarks, err error) {
	names, err := fs.List(dir)
	if err != nil {
		return marks, err
	}
	for _, name := range names {
		number, isLog := strings.CutSuffix(name, ".log")
		n, err := strconv.ParseUint(number, 10, 64)
		if !isLog || err != nil {
			continue
		}
		path := fs.PathJoin(dir, name)
		foreign := false
		err = readLog(fs, path, uint32(n), func(m logMark) {
			foreign = foreign || m.epoch != id.epoch && m.epoch != id.copyOf
			if m.durable > marks.durable {
				marks.durable, marks.file = m.durable, path
			}
		})
		if err == nil && foreign {
			err = errors.New("it belongs to another store")
		}
		if err != nil {
			return marks, fmt.Errorf("%s: %w", path, err)
		}
	}
	return marks, nil
}

// The log's format: blocks of 32 KiB with chunks, none of which crosses a block; 19 bytes of header: checksum (4) of all
// after the length, length (2), type (1), log number (4), offset (8).
const (
	logBlock       = 32 << 10
	logChunkHeader = 19
	logChunkFull   = 9
	logChunkFirst  = 10
	logBatchHeader = 12 // sequence number, count
	logBatchMark   = 3  // the kind of LogData
)

// readLog gives f the marks of one file. What cannot be read is skipped to the next block.
func readLog(fs vfs.FS, path string, number uint32, f func(logMark)) error {
	file, err := fs.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	in := bufio.NewReaderSize(file, 8*logBlock)
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	block := make([]byte, logBlock)
	for {
		n, err := io.ReadFull(in, block)
		for rest := block[:n]; len(rest) >= logChunkHeader; {
			length := int(binary.LittleEndian.Uint16(rest[4:]))
			kind := rest[6]
			if logChunkHeader+length > len(rest) || kind < logChunkFull || kind > logChunkFull+3 || binary.LittleEndian.Uint32(rest[7:]) != number {
				break
			}
			sum := crc32.Checksum(rest[6:logChunkHeader+length], castagnoli)
			if binary.LittleEndian.Uint32(rest) != (sum>>15|sum<<17)+0xa282ead8 {
				break
			}
			if kind == logChunkFull || kind == logChunkFirst {
				readBatchMark(rest[logChunkHeader:logChunkHeader+length], f)
			}
			rest = rest[logChunkHeader+length:]
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// readBatchMark looks for the mark at the beginning of a batch.
func readBatchMark(batch []byte, f func(logMark)) {
	if len(batch) <= logBatchHeader || batch[logBatchHeader] != logBatchMark {
		return
	}
	in := reader{b: batch[logBatchHeader+1:]}
	if m, ok := parseLogMark(in.bytes(in.uvarint())); ok {
		f(m)
	}
}

// checkReplay refuses a database in which commits are missing that the log once had.
func (g *generation) checkReplay(marks logMarks) error {
	if marks.durable > g.serial {
		return fmt.Errorf("%s is corrupt: commits %d to %d cannot be read", marks.file, g.serial+1, marks.durable)
	}
	return nil
}

// mark is what a write that begins now may say.
func (g *generation) mark() []byte {
	return logMark{g.s.identity.epoch, g.durableSerial.Load()}.append(make([]byte, 0, len(logMarkMagic)+epochLen+10))
}
