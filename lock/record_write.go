package lock

import (
	"encoding/json"
	"strconv"
)

// appendEntry appends e as json.Marshal would write it. Every acquire writes one,
// and this takes a tenth of the time.
func appendEntry(b []byte, e *entryText) []byte {
	b = append(b, `{"hash":`...)
	b = appendString(b, e.Hash)
	b = append(b, `,"key":`...)
	b = appendString(b, e.Key)
	if h := e.Held; h != nil {
		b = append(b, `,"held":{"mode":`...)
		b = appendString(b, h.Mode)
		b = appendInt(b, `,"count":`, int64(h.Count))
		b = appendOptional(b, `,"op":`, h.Operation)
		b = appendInt(b, `,"since_ms":`, h.Since)
		b = appendOptional(b, `,"log":`, h.LogPath)
		b = append(b, '}')
	}
	if w := e.Wait; w != nil {
		b = append(b, `,"wait":{`...)
		if w.Mode != "" {
			b = append(appendString(append(b, `"mode":`...), w.Mode), ',')
		}
		b = appendInt(b, `"count":`, int64(w.Count))
		b = appendOptional(b, `,"op":`, w.Operation)
		b = appendInt(b, `,"since_ms":`, w.Since)
		b = append(b, '}')
	}
	return append(b, '}')
}

func appendInt(b []byte, name string, n int64) []byte {
	return strconv.AppendInt(append(b, name...), n, 10)
}

func appendOptional(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	return appendString(append(b, name...), s)
}

func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			text, _ := json.Marshal(s) // never fails for a string
			return append(b, text...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
