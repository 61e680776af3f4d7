package registry

import "embed"

// Migrations holds the numbered SQL files that create and change the tables of schema docex_system. Each file
// is one sequence of statements for one transaction, may be run again, and is run by package provision only.
//
//go:embed migrations/*.sql
var Migrations embed.FS
