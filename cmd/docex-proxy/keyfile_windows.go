package main

// checkPrivate leaves access to the system's own lists, as libpq does here: a mode says nothing.
func checkPrivate(string) error { return nil }
