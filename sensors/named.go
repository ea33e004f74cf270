package sensors

// Named is implemented by the options of a sensor that say which values it gives, where the driver alone cannot.
type Named interface {
	ValueNames() []string // nil: what the driver says
}

// ValueNames returns the names that a sensor's options give to its values, nil when they give none.
func ValueNames(c Config) []string {
	if n, ok := c.Options.(Named); ok {
		return n.ValueNames()
	}
	return nil
}
