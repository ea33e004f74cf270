package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Above these a syntax error has the line that the parser names: to find the true one, parts of the document are parsed about 2 log n times.
const (
	maxSearched       = 64 << 10
	maxSearchedValues = 8192
)

var (
	yamlLine     = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)
	unknownAlias = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// syntaxFault says where a document cannot be parsed, and why. The parser itself names the beginning of the block around it, or no line.
func syntaxFault(file string, data []byte, err error) Fault {
	line, message := 0, err.Error()
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = m[2]
	}
	f := Fault{File: file, Line: line, Message: message, Hint: syntaxHint(message)}
	if line > 0 {
		f.Col = 1
	}
	if strings.HasPrefix(message, "exceeded max depth") || len(data) > maxSearched || bytes.Count(data, []byte(","))+bytes.Count(data, []byte("\n")) > maxSearchedValues {
		return f
	}
	t := newText(data)
	first := 1 + sort.Search(len(t.ends), func(i int) bool { return t.broken(i + 1) })
	if first > len(t.ends) { // nothing is wrong but that the end is missing
		if open := scan(data).open; len(open) > 0 {
			return open[len(open)-1].fault(file)
		}
		first = len(t.ends)
	}
	return t.explain(f, first)
}

func syntaxHint(message string) string {
	switch {
	case strings.Contains(message, "tab"):
		return "YAML is indented with spaces, not with tabs"
	case strings.HasPrefix(message, "did not find expected key"), strings.HasPrefix(message, "did not find expected '-'"), strings.HasPrefix(message, "block sequence entries"):
		return "indent it like the lines that belong together, and check the quotes"
	case strings.HasPrefix(message, "mapping values are not allowed"):
		return `give each key its own line; a text with ": " in it needs quotes`
	case strings.HasPrefix(message, "did not find expected <document start>"):
		return "check the indentation, and whether there is a bracket or a quote too much"
	case strings.HasPrefix(message, "exceeded max depth"):
		return "count the brackets, or the spaces before the lines"
	case strings.HasPrefix(message, "could not find expected ':'"):
		return "write key: value"
	case strings.HasPrefix(message, "found character that cannot start"):
		return "put quotes around the text"
	case strings.HasPrefix(message, "found unknown escape"):
		return `write \\ for a backslash, or use single quotes`
	}
	return "check the indentation and the quotes near this line"
}

// text is a document in lines.
type text struct {
	data []byte
	ends []int // of each line
}

func newText(data []byte) *text {
	t := &text{data: data}
	for i, c := range data {
		if c == '\n' {
			t.ends = append(t.ends, i+1)
		}
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		t.ends = append(t.ends, len(data))
	}
	return t
}

// upTo returns the first n lines.
func (t *text) upTo(n int) []byte {
	if n < 1 {
		return nil
	}
	return t.data[:t.ends[n-1]]
}

func (t *text) line(n int) string { return string(t.data[len(t.upTo(n-1)):t.ends[n-1]]) }

// broken says whether the first n lines cannot be parsed, whatever follows: also not when all that is open is closed.
func (t *text) broken(n int) bool {
	part := t.upTo(n)
	if parses(part) {
		return false
	}
	closed := append(bytes.Clone(part), '\n')
	open := scan(part).open
	for i := len(open) - 1; i >= 0; i-- {
		closed = append(closed, open[i].closer())
	}
	return len(open) == 0 || !parses(closed)
}

func parses(data []byte) bool {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for range 2 { // what follows the end of a document too early is a second one
		var n yaml.Node
		if err := decode(dec, &n); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
	return true
}

// explain finds the place of the mistake when line n is the first that cannot be parsed. It may be in a line before.
func (t *text) explain(f Fault, n int) Fault {
	before, now := scan(t.upTo(n-1)).open, scan(t.upTo(n))
	f.Line, f.Col = n, column(t.line(n))
	switch {
	case now.torn != nil && now.tornAt == n: // the quote was not meant to go over lines
		return now.torn.fault(f.File)
	case now.crossed != nil && now.crossedAt == n:
		return now.crossed.fault(f.File)
	case len(before) > 0 && t.blockItem(n, before[len(before)-1]):
		return before[len(before)-1].fault(f.File)
	}
	if m := unknownAlias.FindStringSubmatch(f.Message); m != nil {
		f.Message, f.Hint = "anchors and aliases (& and *) are not allowed", "write the value out; put quotes around a text that begins with *"
		if i := strings.Index(t.line(n), "*"+m[1]); i >= 0 {
			f.Col = 1 + utf8.RuneCountInString(t.line(n)[:i])
		}
		return f
	}
	if i := strings.IndexByte(t.line(n), '\t'); i >= 0 && len(before) == 0 && strings.TrimSpace(t.line(n)[:i]) == "" {
		f.Col, f.Hint = i+1, syntaxHint("tab")
	}
	if p := t.lineBefore(n); p > 0 && len(before) == 0 && strings.HasPrefix(f.Message, "mapping values are not allowed") {
		switch colon := strings.Contains(t.line(p), ":"); {
		case !colon && indent(t.line(p)) == indent(t.line(n)):
			f.Line, f.Col, f.Message, f.Hint = p, column(t.line(p)), "a colon is missing", "write key: value"
		case colon && indent(t.line(p)) < indent(t.line(n)) && !strings.HasSuffix(strings.TrimSpace(t.line(p)), ":"):
			f.Hint = "indent it like the line before, or put quotes around the text"
		}
	}
	return f
}

// blockItem says whether line n looks as if open should have been closed before it.
func (t *text) blockItem(n int, open opening) bool {
	line := strings.TrimLeft(t.line(n), " ")
	if open.what == '"' || open.what == '\'' || line == "" || strings.IndexByte("]}", line[0]) >= 0 {
		return false
	}
	return strings.HasPrefix(line, "- ") || indent(t.line(n)) <= indent(t.line(open.line))
}

// lineBefore returns the last line before n that has something in it; 0 when there is none.
func (t *text) lineBefore(n int) int {
	for p := n - 1; p > 0; p-- {
		if line := strings.TrimSpace(t.line(p)); line != "" && line[0] != '#' {
			return p
		}
	}
	return 0
}

// indent is where the words of a line begin, behind the - of a list.
func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " -")) }

// column is that of the first character that is not blank.
func column(line string) int { return 1 + len(line) - len(strings.TrimLeft(line, " \t")) }

// opening is a bracket or a quote that opens something.
type opening struct {
	what      byte
	line, col int
}

func (o opening) closer() byte {
	switch o.what {
	case '[':
		return ']'
	case '{':
		return '}'
	}
	return o.what
}

func (o opening) fault(file string) Fault {
	hint := fmt.Sprintf("write a %c where it ends", o.closer())
	if o.what == '"' || o.what == '\'' {
		hint = "close the quotes in the same line"
	}
	return Fault{File: file, Line: o.line, Col: o.col, Message: fmt.Sprintf("the %c that begins here is not closed", o.what), Hint: hint}
}

// scanned is what is open at the end of a text.
type scanned struct {
	open      []opening
	torn      *opening // the last quote that goes over lines
	tornAt    int      // the line in which it ends
	crossed   *opening // the last bracket that another kind of bracket closes
	crossedAt int
}

var blockScalar = regexp.MustCompile(`(^|[ :-])[|>][-+0-9]*\s*(#.*)?$`)

// scan follows brackets and quotes as far as YAML's rules allow without parsing.
func scan(data []byte) scanned {
	s := &scanner{}
	skip := -1 // the indentation of a | or >, whose text follows
	for i, line := range strings.SplitAfter(string(data), "\n") {
		if skip >= 0 && (strings.TrimSpace(line) == "" || column(line)-1 > skip) {
			continue
		}
		skip = -1
		s.line(i+1, strings.TrimRight(line, "\r\n"))
		if len(s.open) == 0 && blockScalar.MatchString(strings.TrimSpace(line)) {
			skip = column(line) - 1
		}
	}
	return s.scanned
}

type scanner struct{ scanned }

// line follows one line. start says whether a value may begin at the place: in its middle a bracket or a quote is part of a word.
func (s *scanner) line(n int, line string) {
	start := true
	for i := 0; i < len(line); i++ {
		c, next := line[i], byte(' ')
		if i+1 < len(line) {
			next = line[i+1]
		}
		if top := s.top(); top == '"' || top == '\'' {
			switch {
			case top == '"' && c == '\\' || top == '\'' && c == '\'' && next == '\'':
				i++
			case c == top:
				s.pop(n)
				start = false
			}
			continue
		}
		flow := len(s.open) > 0
		switch {
		case c == ' ' || c == '\t':
		case c == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t'):
			return
		case (c == '"' || c == '\'') && start, (c == '[' || c == '{') && (start || flow):
			s.open = append(s.open, opening{c, n, 1 + utf8.RuneCountInString(line[:i])})
			start = c == '[' || c == '{'
		case (c == ']' || c == '}') && flow:
			if top := s.open[len(s.open)-1]; top.closer() != c {
				s.crossed, s.crossedAt = &top, n
			}
			s.pop(n)
			start = false
		case c == ',' && flow, c == ':' && (next == ' ' || flow), (c == '-' || c == '?') && start && next == ' ':
			start = true
		case (c == '&' || c == '!') && start: // an anchor or a tag stands before the value
			for i+1 < len(line) && line[i+1] != ' ' {
				i++
			}
		default:
			start = false
		}
	}
}

func (s *scanner) top() byte {
	if len(s.open) == 0 {
		return 0
	}
	return s.open[len(s.open)-1].what
}

func (s *scanner) pop(n int) {
	top := s.open[len(s.open)-1]
	s.open = s.open[:len(s.open)-1]
	if (top.what == '"' || top.what == '\'') && top.line < n {
		s.torn, s.tornAt = &top, n
	}
}
