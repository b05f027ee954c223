// Package csvfile writes tables (RFC 4180) that a spreadsheet may open without harm, and reads
// back what such a cell said.
package csvfile
