package relay

import "strings"

// deallocate answers a DEALLOCATE of a statement that the client prepared by protocol message: the server knows it
// under another name. It reports whether it did; any other text is the server's business.
func (s *Session) deallocate(body []byte, out *Output) bool {
	if len(body) > 256 || !startsFold(body, "deallocate") {
		return false
	}
	text, _, ok := cutString(body)
	if !ok {
		return false
	}
	words := strings.Fields(strings.TrimRight(string(text), "; \t\r\n"))
	if len(words) == 3 && strings.EqualFold(words[1], "prepare") {
		words = append(words[:1], words[2])
	}
	if len(words) != 2 {
		return false
	}
	name := strings.ToLower(words[1])
	if quoted, ok := strings.CutPrefix(words[1], `"`); ok {
		name = strings.ReplaceAll(strings.TrimSuffix(quoted, `"`), `""`, `"`)
	}
	if !s.statements[name].defined() {
		return false
	}
	s.undefine(name)
	b, at := begin(out.ToClient.own(), 'C')
	out.ToClient.keep(end(appendString(b, "DEALLOCATE"), at))
	s.answerReady(out)
	return true
}
