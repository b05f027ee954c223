package userfile

import (
	"github.com/watchword-auth/watchword/internal/problem"
)

// What bounds a file that is read.
const (
	MaxSize   = 16 << 20 // bytes
	MaxRows   = 50_000
	MaxGroups = 100 // of one row
	// maxRow bounds a row, in bytes. All columns have room in it, at their longest.
	maxRow = 64 << 10
)

// A Form is how a file is written. Parse sees by itself which one it is.
type Form string

const (
	CSV       Form = "csv"
	JSON      Form = "json"  // an array
	JSONLines Form = "jsonl" // an object in each line
)

// The names of the columns of a table, and of the members of a JSON object.
const (
	username      = "username"
	email         = "email"
	emailVerified = "email_verified"
	firstName     = "first_name"
	lastName      = "last_name"
	disabled      = "disabled"
	groups        = "groups"
	passwordHash  = "password_hash" // is read, and never written
)

// Columns are all columns, in the order in which they are written; only password_hash is not.
var Columns = []string{username, email, emailVerified, firstName, lastName, disabled, groups, passwordHash}

// A User is a row's content, as it is written there.
type User struct {
	Username      string
	Email         string
	EmailVerified bool
	FirstName     string
	LastName      string
	Disabled      bool
	Groups        []string // names
	PasswordHash  string   // PHC string
}

// A Row is one user of a file.
type Row struct {
	User
	Line int // where it begins, from 1
	// Wrong says why nothing can be made of the row. Then User has what could be read.
	Wrong *problem.Error
}
