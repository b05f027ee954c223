// Package userfile reads and writes files of users: CSV (RFC 4180), a JSON array, or JSON Lines.
// It knows the form of a file and of its rows, and nothing of who is there already.
//
// A file that is read is strict UTF-8, with or without a byte order mark, of at most MaxSize
// bytes and MaxRows rows. What makes it unreadable as a whole (a column that nobody knows, a list
// that does not end) is an error with its line; what is wrong with one row stays with the row.
//
// The columns of a table are Columns, in any order; username must be there. The groups of a user
// are separated by semicolons; before a semicolon or a backslash that belongs to a name stands a
// backslash. A cell that would be a formula in a spreadsheet is guarded as package csvfile says,
// and read so, too.
package userfile
