package configs

// Paths are the keys of the configuration, with those of a server called main.
func Paths() []string {
	var paths []string
	for _, key := range append(fixedKeys(), serverKeys("main")...) {
		paths = append(paths, key.path)
	}
	return paths
}
