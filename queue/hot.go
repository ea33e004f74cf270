package queue

// The rows in the database are "hot". Their sizes are kept in a slice, so that the quota and the spiller need not read them.

func (m *memory) addHot(r Record, size int32) {
	seq := r.ID.Sequence
	m.countRow(seq, size)
	if n := len(m.recent); n > 0 && m.recent[n-1].ID.Sequence+1 != seq {
		m.recent, m.recentLen = nil, 0
	}
	m.recent = append(m.recent, r)
	m.recentLen += rowSize(r)
	for len(m.recent) > 1 && m.recentLen > recentBytes {
		m.forgetOldest()
	}
}

func (m *memory) countRow(seq uint64, size int32) {
	if m.hotFirst == 0 {
		m.hotFirst = seq
	}
	if gap := seq - m.hotFirst - uint64(len(m.hotSizes)); gap > 0 { // left by a purge
		m.hotSizes = append(m.hotSizes, make([]int32, min(gap, 1<<22))...)
	}
	m.hotSizes = append(m.hotSizes, size)
	m.hot.rows++
	m.hot.bytes += int64(size)
}

// rowSize is about what a row takes in memory.
func rowSize(r Record) int64 { return int64(len(r.Data)+len(r.Type)+len(r.Topic)) + 200 }

func (m *memory) forgetOldest() {
	m.recentLen -= rowSize(m.recent[0])
	m.recent[0] = Record{}
	m.recent = m.recent[1:]
}

// dropRecent forgets cached rows up to seq.
func (m *memory) dropRecent(seq uint64) {
	for len(m.recent) > 0 && m.recent[0].ID.Sequence <= seq {
		m.forgetOldest()
	}
	if len(m.recent) == 0 {
		m.recent, m.recentLen = nil, 0
	}
}

// dropHot forgets the sizes of rows up to seq.
func (m *memory) dropHot(seq uint64) {
	for len(m.hotSizes) > 0 && m.hotFirst <= seq {
		m.uncount(0)
		m.hotSizes = m.hotSizes[1:]
		m.hotFirst++
	}
	if len(m.hotSizes) == 0 {
		m.hotFirst, m.hotSizes = 0, nil
	}
}

// cutHot forgets the rows in the database from seq on: they were purged.
func (m *memory) cutHot(seq uint64) {
	for n := len(m.hotSizes); n > 0 && m.hotFirst+uint64(n) > seq; n-- {
		m.uncount(n - 1)
		m.hotSizes = m.hotSizes[:n-1]
	}
	if len(m.hotSizes) == 0 {
		m.hotFirst, m.hotSizes = 0, nil
	}
	m.recent, m.recentLen = nil, 0
}

func (m *memory) uncount(i int) {
	if n := m.hotSizes[i]; n > 0 {
		m.hot.rows--
		m.hot.bytes -= int64(n)
	}
}

// depth is the number of rows that are not finished when the mark stands at acked.
func (m *memory) depth(acked uint64) int {
	n := m.hot.rows
	for i := 0; i < len(m.hotSizes) && m.hotFirst+uint64(i) <= acked; i++ {
		if m.hotSizes[i] > 0 {
			n--
		}
	}
	for _, s := range m.segs {
		if s.last > acked {
			n += int(min(uint64(s.rows), s.last-acked))
		}
	}
	for seq := range m.buried {
		if seq > acked {
			n--
		}
	}
	return max(n, 0)
}

// used is the number of bytes that are taken.
func (m *memory) used() int64 {
	n := m.hot.bytes + m.kept + m.kept/4 // pages are not full
	for _, s := range m.segs {
		n += s.bytes
	}
	return n
}
