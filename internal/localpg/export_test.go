package localpg

// FindBinDirIn is FindBinDir on a machine whose distribution uses these patterns.
var FindBinDirIn = findBinDir
