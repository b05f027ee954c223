// Package testenv starts the real servers that tests need (PostgreSQL, MariaDB,
// Redis…) on free ports and in temporary directories, and stops them whatever
// happens to the test. It never touches a server that runs on the machine.
package testenv
