package sensors

// Memory keeps a few bytes across restarts, such as the baseline of a gas sensor. Board's given to drivers implement it; keys belong to one sensor.
type Memory interface {
	// Load returns what was kept; nil when there is nothing.
	Load(key string) ([]byte, error)
	// Keep stores value durably. It is meant for a few times a day, not for readings.
	Keep(key string, value []byte) error
}

// Load returns what this sensor kept.
func (s *site) Load(key string) ([]byte, error) {
	if s.memory == nil {
		return nil, nil
	}
	return s.memory.Load(s.sensor + "/" + key)
}

// Keep keeps value for this sensor.
func (s *site) Keep(key string, value []byte) error {
	if s.memory == nil {
		return nil
	}
	return s.memory.Keep(s.sensor+"/"+key, value)
}
