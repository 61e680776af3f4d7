// Package program builds and runs the project's programs, for those who try them from outside. It uses none of their
// packages, and knows nothing of what they are tried for.
package program
